"""What changes about a player: registration, consents, documents, tags, breaks and exclusions.

Every happening here ends up in user_profile by way of users.touched_at. It owns no money but a first deposit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector.demo import cashier, people
from connector.demo.ledger import Batch, Hold
from connector.demo.player import Player, Wallet

if TYPE_CHECKING:
    from connector.demo.ledger import Story
    from connector.demo.life import Life
    from connector.demo.people import Person

_HOLD_SECONDS: Final = (0.5, 4.0)


def registration(life: Life, _: Player) -> Story[None]:
    """Let somebody new in: registered, then confirmed, and often a first deposit."""
    person = people.register(life.rng, today=life.today)
    wallet = Wallet(life.ids.take("accounts"), person.currency, 0)
    player = Player(
        id=life.ids.take("users"),
        first_name=person.first_name,
        city=person.city,
        country=person.country,
        level="casual",
        wallet=wallet,
        verified=False,
    )
    _enrol(life.batch, player, person)
    life.happened["registration"] += 1
    life.say(player, "registered")
    life.begin(player, _first_steps, after=life.rng.uniform(1.0, 3.0))
    yield from ()


def preferences(life: Life, player: Player) -> Story[None]:
    """Change one's mind about mails and messages, sometimes in a transaction that lasts."""
    change = (player.id, life.rng.random() < 0.6, life.rng.random() < 0.5)
    if life.rng.random() < 0.15 and life.free_holds:
        batch = Batch()
        batch.add("preferences", *change)
        life.happened["late profile"] += 1
        yield Hold(batch, life.rng.uniform(*_HOLD_SECONDS))
    else:
        life.batch.add("preferences", *change)
    life.happened["profile edit"] += 1


def verification(life: Life, player: Player) -> Story[None]:
    """Hand in documents, and be verified or not."""
    life.batch.add("verifications", player.id, "pending", 0)
    yield life.rng.uniform(0.8, 2.5)
    player.verified = life.rng.random() < 0.85
    outcome = ("verified", 1) if player.verified else ("rejected", 0)
    life.batch.add("verifications", player.id, *outcome)
    life.happened["verification"] += 1
    life.say(player, f"was {outcome[0]}")


def tagging(life: Life, player: Player) -> Story[None]:
    """Gain a tag or a group, or lose a tag: the CRM team's daily bread."""
    name = life.rng.choice(("🔥 hot streak", "🎁 birthday", "welcome_done", "psp_trusted_verified"))
    kind = life.rng.choice(("tags", "tags", "untags", "groups"))
    life.batch.add(kind, player.id, "00007" if kind == "groups" else name)
    life.happened["tagging"] += 1
    yield from ()


def cool_off(life: Life, player: Player) -> Story[None]:
    """Take a break of some days."""
    days = life.rng.choice((1, 7, 14))
    life.batch.add("cool_offs", player.id, f"{days} days")
    player.gone = True
    life.happened["cool-off"] += 1
    life.say(player, f"takes a break of {days} day{'s' if days > 1 else ''}")
    yield from ()


def exclusion(life: Life, player: Player) -> Story[None]:
    """Exclude oneself: for half a year, a year, or for ever."""
    days = life.rng.choice(("180 days", "365 days", None))
    life.batch.add("exclusions", player.id, days)
    life.batch.add("tags", player.id, "SE")
    player.gone = True
    life.happened["self-exclusion"] += 1
    life.say(player, "chose to be excluded " + (f"for {days}" if days else "for ever"))
    yield from ()


def _enrol(batch: Batch, player: Player, person: Person) -> None:
    first, last = people.ascii_name(person.first_name), people.ascii_name(person.last_name)
    mail = f"{first}.{last}.{player.id}@example.com"
    batch.add("users", player.id, f"{first}{player.id % 1000}", mail, *(person.affiliate or (None, None)))
    who = (person.first_name, person.last_name, person.gender, person.date_of_birth)
    batch.add("profiles", player.id, *who, person.country, person.city, person.language, person.time_zone)
    batch.add("accounts", player.wallet.account_id, player.id, person.currency)
    if person.phone is not None:
        batch.add("phones", player.id, person.phone)
    batch.add("groups", player.id, "00002")


def _first_steps(life: Life, player: Player) -> Story[None]:
    life.batch.add("confirmations", player.id)
    life.welcome(player)
    if life.rng.random() < 0.6:
        yield life.rng.uniform(1.0, 4.0)
        yield from cashier.deposit(life, player)
