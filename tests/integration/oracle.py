"""What a store must hold, computed a second time from the raw rows: plain Python, slow, and by another hand.

It knows the rules and no table: amounts are Decimal, days are the calendar's, every question reads every row again.
Nothing here may be imported by the connector, and nothing of its store is imported here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from zoneinfo import ZoneInfo

#: What a row of this kind is called as an event, which total it moves, and in which direction.
KINDS: Final[dict[str, tuple[str, str | None, int]]] = {
    "deposit": ("deposit_confirmed", "deposited", 1),
    "deposit reversed": ("custom_deposit_reversed", "deposited", -1),
    "withdrawal requested": ("withdrawal_requested", None, 1),
    "withdrawal approved": ("custom_withdrawal_approved", None, 1),
    "withdrawal": ("withdrawal_confirmed", "withdrawn", 1),
    "withdrawal failed": ("withdrawal_failed", None, 1),
    "withdrawal reversed": ("custom_withdrawal_reversed", "withdrawn", -1),
    "bet": ("bet_placed", "wagered", 1),
    "win": ("bet_settled", "won", 1),
    "bet rolled back": ("custom_bet_rolled_back", "wagered", -1),
    "win rolled back": ("custom_bet_rolled_back", "won", -1),
    "login": ("login", "session", 1),
    "sport bet": ("sport_bet_placed", "wagered", 1),
    "sport win": ("sport_bet_settled", "won", 1),
    "sport bet void": ("sport_bet_voided", "wagered", -1),
    "sport cashout": ("sport_cashout", "won", 1),
    "sport bet rolled back": ("custom_sport_bet_rolled_back", "wagered", -1),
    "sport win rolled back": ("custom_sport_bet_rolled_back", "won", -1),
}
COUNTS: Final = {"deposit_count": "deposited", "withdrawal_count": "withdrawn", "bet_count": "wagered"}
EFFECTS: Final = ("deposited", "withdrawn", "wagered", "won")
Kind = Literal["deposit", "cashout"]
#: What attributes call deposits and withdrawals, and the currencies that each has attributes for.
PAYMENTS: Final[dict[Kind, str]] = {"deposit": "deposited", "cashout": "withdrawn"}
NUMBERS: Final[dict[Kind, str]] = {"deposit": "deposit_count", "cashout": "withdrawal_count"}
ATTRIBUTE_CURRENCIES: Final[dict[Kind, tuple[str, ...]]] = {
    "deposit": ("eur", "gbp", "trx", "fun"),
    "cashout": ("eur", "gbp", "trx"),
}
TRAILING: Final = {"last_7": 7, "last_30": 30, "last_90": 90}
PERIODS: Final = ("lifetime", "previous_day", *TRAILING)

Slot = tuple[Kind, str, str]  # kind, period, currency or "total"


@dataclass(frozen=True)
class Row:
    """A row as an operator has it. Without a currency it is in the player's; `stake` is wagered by a win row."""

    key: str
    player: str
    kind: str
    at: datetime
    amount: Decimal = Decimal(0)
    currency: str | None = None
    stake: Decimal | None = None

    @property
    def effect(self) -> str | None:
        """The total that the amount moves."""
        return KINDS[self.kind][1]

    @property
    def sign(self) -> int:
        """The direction in which it moves it."""
        return KINDS[self.kind][2]

    def event(self) -> dict[str, Any]:
        """Return the row as the canonical event that a page of its stream has."""
        name, effect, sign = KINDS[self.kind]
        return {
            "key": self.key,
            "external_id": self.player,
            "name": name,
            "occurred_at": self.at,
            "amount": None if effect == "session" else self.amount,
            "currency": self.currency,
            "effect": effect,
            "sign": sign,
            "stake": self.stake,
        }


@dataclass
class Entry:
    """A row that arrived, with the currency and the rate it was given, once each."""

    row: Row
    currency: str | None = None
    rate: Decimal | None = None


@dataclass
class Books:
    """All rows that ever arrived, in order of arrival, and what follows from them."""

    base: str = "EUR"
    places: int = 2
    play: frozenset[str] = frozenset({"FUN"})
    fixed: Mapping[str, Decimal] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    #: Player -> the currency of the account, once a profile told it.
    players: dict[str, str | None] = field(default_factory=dict)
    #: (currency, from when, units of the base currency), in order of arrival.
    rates: list[tuple[str, datetime, Decimal]] = field(default_factory=list)

    #: Player -> as of when an operator told totals, and those (base subunits and numbers; what is not told is not there).
    told: dict[str, tuple[datetime, dict[str, int]]] = field(default_factory=dict)

    # What arrives ----------------------------------------------------------------------------------------------------

    def arrive(self, rows: Iterable[Row]) -> None:
        """Take a page; a row that is there already changes nothing."""
        for row in rows:
            if row.key not in self.entries:
                self.players.setdefault(row.player)
                self.entries[row.key] = Entry(row)
        self._settle()

    def profile(self, player: str, currency: str | None) -> None:
        """Take a profile: the first currency that is known stays."""
        self.players[player] = self.players.get(player) or currency
        self._settle()

    def quote(self, currency: str, valid_from: datetime, rate: Decimal) -> None:
        """Take a rate; it serves what comes from now on, and what has waited for one."""
        self.rates = [known for known in self.rates if known[:2] != (currency, valid_from)]
        self.rates.append((currency, valid_from, rate))
        self._settle()

    def report(self, player: str, as_of: datetime, currency: str | None, values: Mapping[str, Decimal]) -> None:
        """Take an operator's own totals: the newest word counts; one in a currency without a rate counts nothing."""
        currency = currency or self.base
        rate = None if currency in self.play else self._rate(currency, as_of)
        if rate is None:
            return
        self.players.setdefault(player)
        if player not in self.told or self.told[player][0] <= as_of:
            based = {n: self.subunits(v, rate) if n in EFFECTS else int(v) for n, v in values.items()}
            self.told[player] = as_of, based

    def _settle(self) -> None:
        for entry in self.entries.values():
            entry.currency = entry.currency or entry.row.currency or self.players[entry.row.player]
            if entry.rate is None and entry.currency is not None and entry.currency not in self.play:
                entry.rate = self._rate(entry.currency, entry.row.at)

    def _rate(self, currency: str, at: datetime) -> Decimal | None:
        if currency == self.base:
            return Decimal(1)
        if currency in self.fixed:
            return self.fixed[currency]
        earlier = [(valid_from, rate) for code, valid_from, rate in self.rates if code == currency and valid_from <= at]
        return max(earlier)[1] if earlier else None

    def subunits(self, amount: Decimal | None, rate: Decimal | None) -> int:
        """Return an amount in the smallest units of the base currency, half to even; nothing without a rate."""
        if amount is None or rate is None:
            return 0
        unit = Decimal(1).scaleb(-self.places)
        return int((amount * rate).quantize(unit, rounding=ROUND_HALF_EVEN).scaleb(self.places))

    # What follows ----------------------------------------------------------------------------------------------------

    def _of(self, player: str, *effects: str) -> Iterator[Entry]:
        for entry in self.entries.values():
            if entry.row.player == player and (not effects or entry.row.effect in effects):
                yield entry

    def _counts(self, entry: Entry) -> bool:
        """Whether an entry is in totals: real money of a currency that is known."""
        return entry.currency is not None and entry.currency not in self.play

    def totals(self, player: str) -> dict[str, Any]:
        """Return a player's row of totals: base subunits, numbers of rows, and first and last times."""
        sums = {effect: self._lifetime(player, effect) for effect in EFFECTS}
        seen = [entry.row.at for entry in self._of(player)]
        bets, sport = self._bet_times(player, sport=False), self._bet_times(player, sport=True)
        return {
            "total_deposited": sums["deposited"],
            "total_withdrawn": sums["withdrawn"],
            "total_wagered": sums["wagered"],
            "total_won": sums["won"],
            "ggr": sums["wagered"] - sums["won"],
            "bet_count": self._lifetime(player, "bet_count"),
            "deposit_count": self._lifetime(player, "deposit_count"),
            "withdrawal_count": self._lifetime(player, "withdrawal_count"),
            "session_count": sum(entry.row.sign for entry in self._of(player, "session")),
            "sport_wagered": self._sum(player, "wagered", sport=True),
            "sport_won": self._sum(player, "won", sport=True),
            "sport_bet_count": self._count(player, "wagered", sport=True),
            "first_seen_at": min(seen, default=None),
            "last_seen_at": max(seen, default=None),
            "last_bet_at": max([*bets, *sport], default=None),
            "last_deposit_at": max(self._times(player, "deposit"), default=None),
            "vertical_activity": self._verticals(player),
        }

    def _lifetime(self, player: str, name: str) -> int:
        """Return a total or a number of a whole life: what was told, and our rows since; or all of our rows."""
        as_of, values = self.told.get(player, (None, {}))
        after = as_of if name in values else None
        if name in EFFECTS:
            return values.get(name, 0) + self._sum(player, name, after=after)
        return values.get(name, 0) + self._count(player, COUNTS[name], after=after)

    def _verticals(self, player: str) -> dict[str, dict[str, Any]]:
        found = {}
        names = ("wagered", "won", "bet_count")
        total = [self._lifetime(player, name) for name in names]
        sports = [
            *(self._sum(player, name, sport=True) for name in names[:2]),
            self._count(player, "wagered", sport=True),
        ]
        for name, sport in (("casino", False), ("sportsbook", True)):
            wagered, won, bets = sports if sport else [whole - part for whole, part in zip(total, sports, strict=True)]
            last = max(self._bet_times(player, sport=sport), default=None)
            if wagered or won or bets:
                found[name] = {
                    "wagered": wagered,
                    "won": won,
                    "ggr": wagered - won,
                    "bet_count": bets,
                    "last_bet_at": last and last.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                }
        return found

    def _sum(self, player: str, effect: str, *, sport: bool = False, after: datetime | None = None) -> int:
        total = 0
        for entry in self._of(player):
            if (not sport or entry.row.kind.startswith("sport")) and (after is None or entry.row.at > after):
                if entry.row.effect == effect:
                    total += entry.row.sign * self.subunits(entry.row.amount, entry.rate)
                if effect == "wagered":
                    total += entry.row.sign * self.subunits(entry.row.stake, entry.rate)
        return total

    def _count(self, player: str, effect: str, *, sport: bool = False, after: datetime | None = None) -> int:
        return sum(
            entry.row.sign
            for entry in self._of(player)
            if (entry.row.effect == effect or (effect == "wagered" and entry.row.stake is not None))
            and self._counts(entry)
            and (not sport or entry.row.kind.startswith("sport"))
            and (after is None or entry.row.at > after)
        )

    def _times(self, player: str, *kinds: str) -> list[datetime]:
        return [entry.row.at for entry in self._of(player) if entry.row.kind in kinds]

    def _bet_times(self, player: str, *, sport: bool) -> list[datetime]:
        """Return when bets were made; a row that is bet and win in one is one."""
        return [
            entry.row.at
            for entry in self._of(player)
            if entry.row.kind.startswith("sport") == sport
            and entry.row.sign > 0
            and (entry.row.effect == "wagered" or entry.row.stake is not None)
        ]

    def money(self, player: str) -> dict[str, dict[str, Any]]:
        """Return the lifetime totals of each currency in itself, play money too; only what is not zero."""
        found: dict[str, Counter[str]] = {}
        for entry in self._of(player, *EFFECTS):
            if entry.currency is None:
                continue
            row, mine = entry.row, found.setdefault(entry.currency, Counter())
            assert row.effect is not None
            mine[row.effect] += row.sign * row.amount  # type: ignore[assignment]
            counted = {"deposited": "deposit_count", "withdrawn": "withdrawal_count", "wagered": "bet_count"}
            if row.effect in counted:
                mine[counted[row.effect]] += row.sign
            if row.stake is not None:
                mine["wagered"] += row.sign * row.stake  # type: ignore[assignment]
                mine["bet_count"] += row.sign
        kept = {currency: {name: n for name, n in sums.items() if n} for currency, sums in found.items()}
        return {currency: sums for currency, sums in kept.items() if sums}

    # What time makes of it -------------------------------------------------------------------------------------------

    def payments(self, player: str, now: datetime, zone: ZoneInfo) -> tuple[dict[Slot, int], dict[Slot, Decimal]]:
        """Return numbers and sums of payments at a moment, by kind, period and currency; only what is not zero."""
        counts: Counter[Slot] = Counter()
        sums: dict[Slot, Decimal] = {}
        for kind, effect in PAYMENTS.items():
            for entry in self._of(player, effect):
                if entry.currency is None:
                    continue
                row = entry.row
                base = Decimal(self.subunits(row.amount, entry.rate)).scaleb(-self.places)
                parts = [(entry.currency, row.amount)] + ([("total", base)] if self._counts(entry) else [])
                for period in PERIODS:
                    if not in_period(period, row.at, now, zone):
                        continue
                    for currency, amount in parts:
                        slot: Slot = (kind, period, currency)
                        counts[slot] += row.sign
                        sums[slot] = sums.get(slot, Decimal(0)) + row.sign * amount
            whole: Slot = (kind, "lifetime", "total")
            counts[whole] = self._lifetime(player, NUMBERS[kind])
            sums[whole] = Decimal(self._lifetime(player, effect)).scaleb(-self.places)
        return {slot: n for slot, n in counts.items() if n}, {slot: n for slot, n in sums.items() if n}

    def last_deposit(self, player: str) -> tuple[datetime, Decimal | None] | None:
        """Return when the latest deposit was, and what it is worth in the base currency: None without a rate.

        Of several at the same instant it is the one that arrived last.
        """
        found = [entry for entry in self._of(player) if entry.row.kind == "deposit"]
        if not found:
            return None
        instant = max(entry.row.at for entry in found)
        last = [entry for entry in found if entry.row.at == instant][-1]
        worth = Decimal(self.subunits(last.row.amount, last.rate)).scaleb(-self.places)
        return instant, worth if last.rate is not None else None

    def attributes(self, player: str, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
        """Return the ninety-two computed attributes of the schema map at a moment; None: not there."""
        counts, sums = self.payments(player, now, zone)
        found: dict[str, Any] = {}
        for kind, currencies in ATTRIBUTE_CURRENCIES.items():
            for period in PERIODS:
                for currency in ("total", *currencies):
                    slot: Slot = (kind, period, currency if currency == "total" else currency.upper())
                    found[attribute(kind, "count", period, currency)] = counts.get(slot, 0)
                    found[attribute(kind, "sum", period, currency)] = sums.get(slot, Decimal(0))
        last = self.last_deposit(player)
        found["last_sum_deposit"] = last and last[1]
        found["last_time_deposit"] = last and int(last[0].timestamp())
        return found


def attribute(kind: str, what: str, period: str, currency: str) -> str:
    """Return an attribute's name as the schema map writes it."""
    return f"lifetime_{kind}_{what}_{currency}" if period == "lifetime" else f"{kind}_{what}_{period}_{currency}"


def in_period(period: str, at: datetime, now: datetime, zone: ZoneInfo) -> bool:
    """Say whether a payment's time lies in a period as seen at a moment."""
    if period == "lifetime":
        return True
    if period == "previous_day":
        return at.astimezone(zone).date() == now.astimezone(zone).date() - timedelta(days=1)
    return now - timedelta(hours=24 * TRAILING[period]) < at <= now


def midnight(moment: datetime, zone: ZoneInfo, days: int = 0) -> datetime:
    """Return the first instant of a moment's local calendar day, or of one so many days later, in UTC."""
    day = moment.astimezone(zone).date() + timedelta(days=days)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=16)
    before, after = 0, 32 * 3_600_000_000  # no zone is further from UTC than that
    while after - before > 1:
        middle = (before + after) // 2
        if (start + timedelta(microseconds=middle)).astimezone(zone).date() < day:
            before = middle
        else:
            after = middle
    return start + timedelta(microseconds=after)
