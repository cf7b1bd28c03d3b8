"""Money that comes and goes: deposits with their bonuses, withdrawals, chargebacks, in the steps that the views show.

Owns the statuses and their odds. It keeps a wallet's amount beside the database's own, and writes it now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector.demo import games
from connector.demo.ledger import Batch, Hold

if TYPE_CHECKING:
    from connector.demo.ledger import Story
    from connector.demo.life import Life
    from connector.demo.player import Player, Wallet

_HOLD_SECONDS: Final = (0.5, 4.0)
#: The back office approves in batches: withdrawals of one beat share their stamp.
_APPROVAL_SECONDS: Final = 2.0


def deposit(life: Life, player: Player, *, at_least: int = 0) -> Story[bool]:
    """Deposit: pending, then declined (False) or final; now and then settled a moment after the money is there."""
    wallet, rng = player.wallet, life.rng
    amount = max(at_least, wallet.cents(rng.choice(games.DEPOSITS[player.level])))
    number, (method, brand) = life.ids.take("payments"), _method(life, wallet)
    code = rng.choice(("RELOAD50", "FRIDAY")) if rng.random() < 0.12 else None
    payment = (number, player.id, wallet.account_id, "deposit", amount, wallet.currency, method, brand, code, 0)
    life.batch.add("payments", *payment)
    yield rng.uniform(0.5, 3.0)
    if rng.random() < 0.13:
        reason = rng.choice(("insufficient_funds", "declined_by_issuer", "3ds_failed"))
        _outcome(life.batch, number, success=False, reason=reason)
        life.happened["declined deposit"] += 1
        life.say(player, f"could not deposit {games.money(amount, wallet.currency)}: {reason.replace('_', ' ')}")
        return False
    wallet.amount += amount
    yield from _settle(life, number, now_there=wallet.amount)
    balance(life, wallet)
    life.happened["deposit"] += 1
    life.deposits.append((player, number))
    if code is not None:
        life.tell(bonus(life, wallet, code, amount), after=rng.uniform(0.2, 1.0))
    life.say(player, f"deposited {games.money(amount, wallet.currency)} by {method.replace('_', ' ')}")
    return True


def bonus(life: Life, wallet: Wallet, code: str, amount: int) -> Story[None]:
    """Issue the bonus of a deposit, and see what becomes of it."""
    rng, number = life.rng, life.ids.take("bonus_issues")
    spins = 20 if code == "FRIDAY" else None
    kind = "freespins" if spins else "deposit"
    life.batch.add("bonuses", number, wallet.account_id, code, kind, amount // 2, amount * 15, spins)
    life.batch.add("bonus_statuses", number, "ISSUED", None)
    yield rng.uniform(0.5, 3.0)
    life.batch.add("bonus_statuses", number, "ACTIVE", 0)
    life.happened["bonus"] += 1
    yield rng.uniform(2.0, 8.0)
    status = rng.choice(("WAGER_DONE", "LOST", "LOST", "CANCELLED", "EXPIRED"))
    wagered = 15 * amount if status == "WAGER_DONE" else rng.randrange(15 * amount)
    life.batch.add("bonus_statuses", number, status, wagered)
    life.happened["bonus ended"] += 1


def withdrawal(life: Life, player: Player) -> Story[None]:
    """Ask for money, wait for the back office, and receive it or not."""
    wallet, number = player.wallet, life.ids.take("payments")
    fives = wallet.amount * life.rng.randint(3, 10) // (10 * wallet.cents(500))
    amount = wallet.cents(500 * max(2, fives))
    wallet.amount -= amount
    payment = (number, player.id, wallet.account_id, "cashout", amount, wallet.currency, *_method(life, wallet), None)
    life.batch.add("payments", *payment, amount // 100)
    life.happened["withdrawal requested"] += 1
    life.say(player, f"asks for {games.money(amount, wallet.currency)}")
    reached = yield from _statuses(life, number)
    life.happened[f"withdrawal {reached.lower()}"] += 1
    if reached == "COMPLETED":
        life.say(player, f"received {games.money(amount, wallet.currency)}")
    else:
        wallet.amount += amount
    balance(life, wallet)


def chargeback(life: Life, _: Player) -> Story[None]:
    """Have the bank take back one of the latest deposits."""
    while not life.deposits:
        yield 0.5
    player, number = life.deposits.popleft()
    life.batch.add("chargebacks", life.ids.take("payments"), number)
    life.happened["chargeback"] += 1
    life.say(player, "had a deposit taken back by the bank")


def balance(life: Life, wallet: Wallet) -> None:
    """Write what lies in `wallet`."""
    life.batch.add("balances", wallet.account_id, max(0, wallet.amount))


def _settle(life: Life, number: int, *, now_there: int) -> Story[None]:
    if life.rng.random() < 0.2:
        _outcome(life.batch, number, success=True, final=False, balance=now_there)
        yield life.rng.uniform(0.3, 1.5)
    if life.rng.random() < 0.1 and life.free_holds:
        batch = Batch()
        _outcome(batch, number, success=True, balance=now_there)
        life.happened["late deposit"] += 1
        yield Hold(batch, life.rng.uniform(*_HOLD_SECONDS))
    else:
        _outcome(life.batch, number, success=True, balance=now_there)


def _statuses(life: Life, number: int) -> Story[str]:
    rng, fate = life.rng, life.rng.random()
    life.batch.add("transitions", number, "REQUESTED", None)
    if fate < 0.1:
        yield rng.uniform(0.5, 2.0)
        return _end(life, number, "CANCELLED", reason="by the player")
    yield rng.uniform(0.3, 1.5)
    yield _APPROVAL_SECONDS - life.time % _APPROVAL_SECONDS
    if fate < 0.22:
        return _end(life, number, "REJECTED", reason="documents missing")
    life.batch.add("transitions", number, "APPROVED", None)
    yield rng.uniform(0.5, 2.5)
    if fate < 0.25:
        return _end(life, number, "FAILED", reason="bank refused")
    _end(life, number, "COMPLETED")
    if fate < 0.96:
        return "COMPLETED"
    yield rng.uniform(1.0, 3.0)
    life.batch.add("transitions", number, "REVERSED", "returned by the bank")
    return "REVERSED"


def _end(life: Life, number: int, status: str, *, reason: str | None = None) -> str:
    life.batch.add("transitions", number, status, reason)
    _outcome(life.batch, number, success=status == "COMPLETED")
    return status


def _outcome(
    batch: Batch,
    number: int,
    *,
    success: bool,
    final: bool = True,
    reason: str | None = None,
    balance: int | None = None,
) -> None:
    batch.add("outcomes", number, success, final, reason, balance)


def _method(life: Life, wallet: Wallet) -> tuple[str, str]:
    method = life.rng.choice(("card", "card", "card", "bank_transfer", "e-wallet", "voucher"))
    brand = life.rng.choice(("Alpenpay", "Cardelle", "Quillbank", "Mintline"))
    return "crypto" if wallet.currency in {"TRX", "BTC"} else method, brand
