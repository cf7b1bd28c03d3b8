"""What Customer.io shows of a player is what the operator's rows say: every attribute, by its App API, after faults too."""

from __future__ import annotations

import contextlib
import json
import os
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import httpx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock, config
from connector.edges import Edges
from connector.errors import Transient
from connector.money import Rates
from connector.normalised import Normalised
from connector.store import edges
from connector.store.commit import Batch, commit
from connector.streams import STREAMS
from connector.streams.contract import Context, bind
from tests.integration.oracle import KINDS, Books, Row
from tests.integration.test_relay import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connector.emulators import serve
    from connector.store.database import Database

Writer = Any
Frames = Any
TENANT: Final = "kaasino"
ZONE: Final = ZoneInfo("Europe/Madrid")
FIXED: Final = {"GBP": Decimal("1.17"), "TRX": Decimal("0.2517")}
BRAND: Final = {"customer_id": "kaasino:{user_ext_id}", "server_codename": "kaasino", "site_domain": "example.com"}
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "20"))
#: More examples than usual take longer than a test may otherwise.
pytestmark = pytest.mark.timeout(0 if "CONNECTOR_EXAMPLES" in os.environ else 120)
#: The attributes that are no sums and counts of payments, in the schema map's order; the last two are Customer.io's own.
DIRECT: Final = (
    *("id", "email", "phone", "anonymous_id", "subscription_token", "ga_id", "first_name", "last_name", "country"),
    *("last_login_country", "gender", "date_of_birth", "locale", "timezone", "currency", "created_at", "confirmed_at"),
    *("disabled", "duplicates", "server_codename", "site_domain", "accept_bonuses", "receive_promos"),
    *("receive_sms_promos", "receive_promos_via_phone_calls", "agreed_to_partner_promotions", "stag", "tags"),
    *("groups", "unsubscribed", "cio_id"),
)
DISABLED: Final = {"ACTIVE": "none", "APPROVED": "none", "PENDING": "none", "SELF_EXCLUDED": "self_excluded"}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What an operator writes, and what it means -------------------------------------------------------------------------

TEXTS: Final = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
TIMES: Final = st.datetimes(datetime(1950, 1, 1), datetime(2025, 12, 31)).map(lambda at: at.replace(microsecond=0))  # noqa: DTZ001 - as an operator writes it
FLAGS: Final = st.sampled_from(["true", "false", "1", "0", "t", "f"])
#: Cells that may be null; the columns are always there. "+" stands for a value of the player's own, or for days ahead.
OPTIONAL: Final = {
    "user_email": st.just("+"),
    "user_phone": st.just("+"),
    "user_birthdate": TIMES.map(str),
    "user_first_name": TEXTS,
    "user_last_name": TEXTS,
    "core_affiliate_str": TEXTS,
    "stag": TEXTS,
    "core_is_email_disabled_by_platform": FLAGS,
    "core_is_sms_disabled_by_platform": FLAGS,
    "core_user_gender": st.sampled_from(["MALE", "F", "UNKNOWN", "m"]),
    "timezone": st.sampled_from(["Europe/Madrid", "UTC"]),
    "last_login_country": st.sampled_from(["DE", "FR"]),
    **dict.fromkeys(("ga_id", "subscription_token", "anonymous_id"), TEXTS),
    **dict.fromkeys(("duplicates", "accept_bonuses", "promo_phone", "partner_promos"), FLAGS),
    "email_confirmed_at": TIMES.map(str),
    **dict.fromkeys(("cooling_off_until", "self_excluded_until"), st.integers(-2, 60).map(lambda days: f"{days:+}")),
}
USERS: Final = st.fixed_dictionaries(
    {
        "core_account_status": st.sampled_from([*["ACTIVE"] * 5, *DISABLED, "BANNED", "LOCKED", "BLOCKED"]),
        "core_registration_date": TIMES.map(str),
        "core_user_language": st.sampled_from(["EN", "DE", "ES"]),
        "core_wallet_currency": st.sampled_from(["EUR", "GBP", "TRX", "SEK", None]),
        "user_country": st.sampled_from(["DE", "GB"]),
        "tags": st.lists(TEXTS, max_size=4).map(lambda items: json.dumps(items, ensure_ascii=False)),
        "groups": st.lists(st.sampled_from(["00001", "00039", "7"]), max_size=3).map(json.dumps),
    },
    optional=OPTIONAL,
)
User = dict[str, str | None]


def seconds(text: str | None) -> int | None:
    """Return unix seconds of a time in UTC."""
    return None if text is None else int((datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH).total_seconds())


def flag(text: str | None, default: str | None = None, *, negated: bool = False) -> str | None:
    """Return a flag as the schema map writes it."""
    return default if text is None else str((text in {"true", "t", "1"}) != negated).lower()


def written(instant: datetime) -> str:
    """Return an instant as an operator writes it."""
    return str(instant.replace(tzinfo=None))


def phone(player: str) -> str:
    """Return a phone number of the player's own, as it is dialled at home."""
    return f"0151{ord(player[0]) % 10}{player[1:]:>06}"


def barred(user: User, now: datetime) -> tuple[str, bool]:
    """Return a player's `disabled` at a moment, and whether marketing is barred then."""
    until = {
        name: text is not None and datetime.fromisoformat(text).replace(tzinfo=UTC) > now
        for name in ("cooling_off_until", "self_excluded_until")
        for text in [user[name]]
    }
    status = str(user["core_account_status"])
    disabled = DISABLED.get(status, "disabled")
    if until["self_excluded_until"]:
        disabled = "self_excluded"
    elif until["cooling_off_until"] and disabled == "none":
        disabled = "cooling_off"
    return disabled, status != "ACTIVE" or any(until.values())


def means(user: User) -> dict[str, Any]:
    """Return the attributes that a user row means by the schema map; `currency` needs the rows before it."""
    stated = user.get
    return {
        "id": f"kaasino:{user['user_ext_id']}",
        "email": stated("user_email"),
        "phone": stated("user_phone")
        and {"DE": "+49", "GB": "+44"}[str(user["user_country"])] + str(stated("user_phone"))[1:],
        "first_name": stated("user_first_name"),
        "last_name": stated("user_last_name"),
        "country": user["user_country"],
        "gender": {"MALE": "m", "m": "m", "F": "f"}.get(stated("core_user_gender") or ""),
        "date_of_birth": seconds(stated("user_birthdate")),
        "locale": str(user["core_user_language"]).lower(),
        "created_at": seconds(user["core_registration_date"]),
        "confirmed_at": seconds(stated("email_confirmed_at")),
        "duplicates": flag(stated("duplicates")),
        "server_codename": "kaasino",
        "site_domain": "example.com",
        "accept_bonuses": flag(stated("accept_bonuses"), "true"),
        "receive_promos": flag(stated("core_is_email_disabled_by_platform"), negated=True),
        "receive_sms_promos": flag(stated("core_is_sms_disabled_by_platform"), negated=True),
        "receive_promos_via_phone_calls": flag(stated("promo_phone"), "false"),
        "agreed_to_partner_promotions": flag(stated("partner_promos"), "false"),
        "stag": stated("stag") or stated("core_affiliate_str"),
        **{name: stated(name) and json.loads(str(stated(name))) for name in ("tags", "groups")},
        **{name: stated(name) for name in ("timezone", "last_login_country", "ga_id", "subscription_token")},
        "anonymous_id": stated("anonymous_id"),
    }


# The world ----------------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class World:
    """A store, the operator's rows beside it, and a workspace that is told of it."""

    store: Database
    writer: Writer
    frames: Frames
    feed: Feed
    emulator: serve.Running
    runs: count[int] = field(default_factory=lambda: count(1))
    books: Books = field(default_factory=Books)
    users: dict[str, User] = field(default_factory=dict)
    #: What was written of a player last, and before that.
    last: dict[str, User] = field(default_factory=dict)
    before: dict[str, User] = field(default_factory=dict)
    passed: timedelta = timedelta(0)
    real: Callable[[], datetime] = clock.now

    def __post_init__(self) -> None:
        self.begun = self.real()
        self.client = httpx.Client(base_url=self.emulator.url, headers={"Authorization": "Bearer key"})
        self.loop = Edges(TENANT, self.store)
        edges.use(self.writer.connection, TENANT, zone=ZONE.key, play=["FUN"])

    @property
    def now(self) -> datetime:
        """The time that this world's clock shows: it stands still between the steps."""
        return self.begun + self.passed

    def begin(self) -> int:
        """Start afresh, with players that nobody has seen; returns the run's number."""
        self.books, self.users, self.before, self.last = Books(fixed=FIXED), {}, {}, {}
        return next(self.runs)

    def commit(self, brought: Normalised) -> None:
        """Commit a page."""
        batch = Batch(self.writer.checkpoint, brought, rows=1)
        commit(self.writer.connection, batch, rates=Rates("EUR", FIXED), lease=self.writer.lease)

    def user(self, player: str, stated: User) -> None:
        """Read a user row as the stream does and commit what it became."""
        row = {**dict.fromkeys(OPTIONAL), **stated, "ext_brand_id": "kaasino", "user_ext_id": player}
        row["dt_update"] = written(self.now)
        for name, own in (("user_email", f"player{player}@example.com"), ("user_phone", phone(player))):
            row[name] = row[name] and own
        for name in ("cooling_off_until", "self_excluded_until"):
            days = row[name]
            row[name] = days and written(self.now + timedelta(days=int(days)))
        binding = bind(STREAMS["user_profile"], config.Stream(), dict.fromkeys(row, "text"), view="user_profile")
        page = pl.DataFrame([row], schema=dict.fromkeys(row, pl.String))
        found = STREAMS["user_profile"].normalise(page, binding, Context())
        assert set(found.rejections["field"]) <= {"core_wallet_currency"}, found.rejections.to_dicts()
        self.commit(found)
        row["self_excluded_until"] = row["self_excluded_until"] or self.users.get(player, row)["self_excluded_until"]
        self.users[player], self.before[player], self.last[player] = row, self.last.get(player, stated), stated
        self.books.profile(player, row["core_wallet_currency"])

    def page(self, rows: Sequence[Row]) -> None:
        """Commit transactions."""
        self.commit(Normalised(events=self.frames.events(*(row.event() for row in rows))))
        self.books.arrive(rows)

    def go_wrong(self, *script: str) -> None:
        """Let the next requests fail in these ways, and none after them."""
        faults = {"script": list(script), "retry_after": 0.0, "app_rate": None}
        assert self.client.patch("/_control/faults", json=faults).is_success

    def deliver(self, script: Sequence[str] = ()) -> None:
        """Let time's marks be made and everything be delivered, while requests go wrong."""
        while self.loop.run_once().busy:
            pass
        self.go_wrong(*script)
        self.feed.drain()
        self.go_wrong()

    def stumble(self) -> None:
        """Lose the reply to the next request of every lane, which goes no further."""
        for relay in self.feed.app.relays:
            self.go_wrong("reset")
            with contextlib.suppress(Transient):
                relay.run_once()
        self.go_wrong()

    def truth(self, player: str) -> dict[str, Any]:
        """Return all attributes that a player has by the rows, None where there is none."""
        user = self.users[player]
        return {
            **means(user),
            "disabled": barred(user, self.now)[0],
            "currency": self.books.players[player],
            **self.books.attributes(player, self.now, ZONE),
        }

    def shown(self, player: str) -> dict[str, str]:
        """Return what the App API shows of a player."""
        answer = self.client.get(f"/v1/customers/kaasino:{player}/attributes")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["customer"]["attributes"])

    def said(self, player: str) -> dict[str, Any]:
        """Return the attributes that were last sent."""
        bodies = [json.loads(body) for kind, _, _, body in self.feed.log if kind == "profile"]
        mine = [body["attributes"] for body in bodies if body["identifiers"] == {"id": f"kaasino:{player}"}]
        return dict(mine[-1])

    def check(self) -> None:
        """Compare every attribute of every player whom a user row has introduced."""
        for player in self.users:
            truth, shown, said = self.truth(player), self.shown(player), self.said(player)
            assert len(truth.keys() | {"unsubscribed", "cio_id"}) == 123
            assert shown.pop("cio_id") not in said.values()
            excluded = barred(self.users[player], self.now)[1]
            opted_out = means(self.users[player])["receive_promos"] == "false"
            assert shown.pop("unsubscribed", "false") == str(excluded).lower() or (opted_out and not excluded)
            assert "anonymous_id" not in shown  # written, and not shown by that API
            assert said.get("anonymous_id") == truth.pop("anonymous_id")
            wrong = {
                name: (value, shown.get(name), said.get(name))
                for name, value in truth.items()
                if not same(name, value, shown.get(name), said.get(name, value if name == "id" else None))
            }
            assert wrong == {}, player


def same(name: str, value: Any, shown: str | None, said: Any) -> bool:
    """Whether an attribute is shown as it is, and was sent in the type that the schema map gives it."""
    if value is None:
        return shown is None and said is None
    if name in ("tags", "groups"):
        return shown is not None and json.loads(shown) == value and json.loads(said) == value
    if name == "last_sum_deposit":
        return type(said) is str and shown == said and Decimal(said) == value
    if isinstance(value, Decimal):
        return type(said) in (int, float) and shown is not None and Decimal(shown) == value
    return type(said) is type(value) and said == value and shown == str(value)


@pytest.fixture
def world(
    store: Database, writer: Writer, frames: Frames, emulator: serve.Running, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Give a world whose clock stands still until a test moves it."""
    feed = Feed(store, emulator, brands={TENANT: BRAND}, events=[])
    made = World(store, writer, frames, feed, emulator)
    monkeypatch.setattr(clock, "now", lambda: made.now)
    yield made
    made.loop.close()
    made.client.close()
    feed.close()


# Histories ----------------------------------------------------------------------------------------------------------

ROWS: Final = st.tuples(
    st.sampled_from(["deposit", "withdrawal", "deposit", "withdrawal", *KINDS]),
    st.sampled_from(["EUR", "GBP", "TRX", "FUN", "SEK", None]),
    st.integers(1, 9_999_999),
    st.integers(-100 * 86_400, 86_400),
)
WRONG: Final = st.lists(st.sampled_from(["ok", "429", "500", "503", "reset", "reset_before"]), max_size=6)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("user"), st.integers(0, 1), USERS),
        st.tuples(st.just("page"), st.integers(0, 1), st.lists(ROWS, min_size=1, max_size=6)),
        st.tuples(st.just("deliver"), WRONG),
        st.tuples(st.just("user"), st.just(0), USERS),
        st.tuples(st.just("deliver"), st.just([])),
        st.tuples(st.just("stumble")),
        st.tuples(st.just("back"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.integers(1, 40 * 86_400)),
    ),
    min_size=4,
    max_size=12,
)


@given(steps=STEPS, wrong=WRONG)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="CONNECTOR_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_attribute_is_shown_as_the_rows_say(world: World, steps: list[tuple[Any, ...]], wrong: list[str]) -> None:
    """Whatever went wrong on the way, and when nothing happens but time."""
    run, numbers = world.begin(), count(1)
    for name, *rest in steps:
        player = f"{string.ascii_lowercase[rest[0]]}{run}" if name in ("user", "page", "back") else ""
        if name == "user":
            world.user(player, rest[1])
        elif name == "page":
            world.page(
                [
                    Row(
                        f"{run}.{next(numbers)}",
                        player,
                        kind,
                        world.now + timedelta(seconds=after),
                        Decimal(n) / 1000,
                        code,
                    )
                    for kind, code, n, after in rest[1]
                ]
            )
        elif name == "back" and player in world.before:
            world.user(player, world.before[player])
        elif name == "stumble":
            world.stumble()
        elif name == "deliver":
            world.deliver(rest[0])
        elif name == "wait":
            world.passed += timedelta(seconds=rest[0])
    world.deliver(wrong)
    world.check()
    for days in (1, 8, 95):
        world.passed += timedelta(days=days)
        world.deliver(wrong)
        world.check()
