"""From an operator's views to the store and its totals, on every real dialect, against sums made here in Decimal."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from connector import app as application, clock, config
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.errors import ConnectorError
    from connector.store.database import Database

OperatorDatabase = Any
RATES: Final = {"EUR": Decimal(1), "GBP": Decimal("1.17"), "SEK": Decimal("0.0871")}
#: FUN is play money: it has no rate.
CURRENCIES: Final = ("EUR", "GBP", "SEK", "FUN")
LONG_AGO: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
BRAND: Final = "kaasino"

_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_MONEY: Final = {"postgresql": "numeric(24,6)", "mysql": "decimal(24,6)"}
_IDENTITY: Final = "ext_brand_id varchar(20), user_ext_id varchar(40)"
_TABLES: Final = {
    "user_profile": f"dt_update STAMP, {_IDENTITY}, core_account_status varchar(20), core_registration_date STAMP, "
    "core_user_language varchar(5), core_wallet_currency varchar(5), user_email varchar(80)",
    "deposits": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "deposit_amount AMOUNT, currency varchar(5), is_rollback boolean",
    "withdrawals": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "withdrawal_amount AMOUNT, withdrawal_status varchar(20), currency varchar(5)",
    "casino_bets": f"id bigint, {_IDENTITY}, type varchar(20), bet_date STAMP, bet_amount AMOUNT, win_amount AMOUNT, "
    "currency varchar(5), game_id varchar(20), game_name varchar(40)",
    "casino_wins": f"id bigint, {_IDENTITY}, bet_id varchar(20), bet_date STAMP, win_amount AMOUNT, currency varchar(5), "
    "game_id varchar(20), game_name varchar(40)",
}
EVENT_OF: Final = {
    "REQUESTED": "withdrawal_requested",
    "COMPLETED": "withdrawal_confirmed",
    "REJECTED": "withdrawal_failed",
    "REVERSED": "custom_withdrawal_reversed",
}
#: Row type -> (event, what it adds to, sign).
CASINO: Final = {
    "BET": ("bet_placed", "wagered", 1),
    "WIN": ("bet_settled", "won", 1),
    "LOSS": ("bet_settled", "won", 1),
    "ROLLBACK_BET": ("custom_bet_rolled_back", "wagered", -1),
    "ROLLBACK_WIN": ("custom_bet_rolled_back", "won", -1),
}


@dataclass
class Expected:
    """What the store has to hold, summed here row by row."""

    events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    base: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    native: dict[tuple[str, str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    bets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, stream: str, key: str, name: str, player: str, money: tuple[str, int, Decimal, str] | None) -> None:
        """Count one event; `money` is (effect, sign, amount, currency)."""
        self.events[stream, key, name] += 1
        if money is None:
            return
        effect, sign, amount, currency = money
        self.native[player, currency, effect] += sign * amount
        if currency in RATES:
            cents = (amount * RATES[currency]).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
            self.base[player, effect] += sign * int(cents * 100)


@dataclass
class Casino:
    """Rows of an operator's tables, and what they add up to."""

    operator: OperatorDatabase
    expected: Expected = field(default_factory=Expected)
    count: int = 0

    def create(self, *names: str, **changes: str) -> None:
        """Create tables and views; `changes` replaces a table's columns."""
        for name in names:
            columns = changes.get(name, _TABLES[name])
            typed = columns.replace("STAMP", _STAMP[self.operator.family]).replace(
                "AMOUNT", _MONEY[self.operator.family]
            )
            self.operator.execute(
                f"create table {name}_rows ({typed})", f"create view {name} as select * from {name}_rows"
            )

    def user(
        self, player: str, *, currency: str | None = "EUR", status: str = "ACTIVE", at: datetime = LONG_AGO
    ) -> None:
        """Add or rewrite a user."""
        self.operator.execute(f"delete from user_profile_rows where user_ext_id = '{player}'")
        row = (text(at), BRAND, player, status, text(LONG_AGO), "EN", currency, f"player{player}@example.com")
        self.operator.fill("user_profile_rows", [row])

    def deposit(
        self, key: str, player: str, amount: str, currency: str | None, *, at: datetime, back: bool = False
    ) -> None:
        """Add a deposit, or one that takes money back."""
        row = (text(at), BRAND, player, key, text(at), amount, currency, back)
        self.operator.fill("deposits_rows", [row])
        name = "custom_deposit_reversed" if back else "deposit_confirmed"
        self.expected.add(
            "deposits", key, name, player, ("deposited", -1 if back else 1, Decimal(amount), currency or "EUR")
        )

    def withdrawal(self, key: str, player: str, amount: str, currency: str, status: str, *, at: datetime) -> None:
        """Add a withdrawal's transition."""
        self.operator.fill("withdrawals_rows", [(text(at), BRAND, player, key, text(at), amount, status, currency)])
        sign = {"COMPLETED": 1, "REVERSED": -1}.get(status, 0)
        money = ("withdrawn", sign, Decimal(amount), currency) if sign else None
        self.expected.add("withdrawals", f"{key}|{status}", EVENT_OF[status], player, money)

    def bet(self, number: int, player: str, kind: str, amount: str, currency: str, *, at: datetime) -> None:
        """Add a casino row; a win row repeats the stake of its bet, which counts no second time."""
        name, effect, sign = CASINO[kind]
        stake = amount if effect == "wagered" else "1.00"
        win = amount if effect == "won" and kind != "LOSS" else None
        row = (number, BRAND, player, kind, text(at), stake, win, currency, "g1", "Book of Tests")
        self.operator.fill("casino_bets_rows", [row])
        won = Decimal(0) if kind == "LOSS" else Decimal(amount)
        self.expected.add("casino_bets", str(number), name, player, (effect, sign, won, currency))
        if effect == "wagered":
            self.expected.bets[player] += sign

    def play(self, *, since: datetime, first: int, rows: int = 60) -> None:
        """Add users, deposits, withdrawals and bets of all kinds, many under the same stamp."""
        for number in range(8):
            self.user(f"{number:05}", currency=CURRENCIES[number % 4], at=since)
        for number in range(first, first + rows):
            player, currency = f"{number * 7 % 8:05}", CURRENCIES[number * 7 % 4]
            at = since + timedelta(microseconds=number // 4)
            amount = f"{number * 37 % 1001}.{number * 7919 % 1000000:06}"
            self.deposit(f"d{number}", player, amount, currency, at=at, back=number % 9 == 5)
            status = ("REQUESTED", "COMPLETED", "REJECTED", "REVERSED")[number % 4]
            self.withdrawal(f"w{number // 2}", player, amount, currency, status, at=at)
            self.bet(number, player, list(CASINO)[number % 5], amount, currency, at=at)


def text(instant: datetime | None) -> str | None:
    """Write an instant as both servers take it, in UTC."""
    return None if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def now() -> datetime:
    """Return the time."""
    return clock.now()


def settings_of(operator: OperatorDatabase, store: Database, **streams: dict[str, Any]) -> config.Config:
    """Return a configuration that reads these streams."""
    source = streams.pop("source", {})
    document = {
        "store": {"url": store.url},
        "tenant": "kaasino",
        "base_currency": "EUR",
        "fx": {"fixed": {name: str(rate) for name, rate in RATES.items()}},
        "sources": [{"name": "casino", "url": operator.url, "streams": streams, **source}],
        "web": None,
    }
    return config.parse(document, streams=list(STREAMS))


ALL: Final[dict[str, dict[str, Any]]] = {
    "user_profile": {},
    "deposits": {},
    "withdrawals": {},
    "casino_bets": {"start": "beginning"},
}


def run(settings: config.Config) -> dict[str, ConnectorError]:
    """Read to the heads and return what stopped."""
    return application.build(settings, once=True).run_once(threading.Event())


@pytest.fixture
def casino(operator: OperatorDatabase) -> Casino:
    """Give an empty casino on every dialect."""
    made = Casino(operator)
    made.create("user_profile", "deposits", "withdrawals", "casino_bets")
    return made


@pytest.fixture
def pg_casino(operator_of: Callable[[str], OperatorDatabase]) -> Casino:
    """Give an empty casino on PostgreSQL."""
    made = Casino(operator_of("postgresql"))
    made.create("user_profile", "deposits", "withdrawals", "casino_bets")
    return made


@pytest.fixture
def crm(store: Database) -> Iterator[Crm]:
    """Give a look into the store."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        yield Crm(connection)


@dataclass
class Crm:
    """The store's contents as tests compare them."""

    connection: psycopg.Connection[dict[str, Any]]

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return rows as mappings."""
        return self.connection.execute(query.encode(), values).fetchall()

    def events(self) -> Counter[tuple[str, str, str]]:
        """Return every event's identity."""
        return Counter((row["stream"], row["key"], row["name"]) for row in self.rows("select * from crm.events"))

    def base(self) -> dict[tuple[str, str], int]:
        """Return players' totals in base subunits, zeros left out."""
        names = {
            "deposited": "total_deposited",
            "withdrawn": "total_withdrawn",
            "wagered": "total_wagered",
            "won": "total_won",
        }
        rows = self.rows("select * from crm.players")
        return {
            (row["external_id"], name): row[column] for row in rows for name, column in names.items() if row[column]
        }

    def native(self) -> dict[tuple[str, str, str], Decimal]:
        """Return players' native totals, zeros left out."""
        rows = self.rows("select p.external_id, m.* from crm.player_money m join crm.players p using (player_id)")
        effects = ("deposited", "withdrawn", "wagered", "won")
        return {(row["external_id"], row["currency"], name): row[name] for row in rows for name in effects if row[name]}

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that a second reading of the same rows must leave alone."""
        return {
            "events": self.rows("select * from crm.event_rows order by seq"),
            "players": self.rows("select * from crm.players order by player_id"),
            "money": self.rows("select * from crm.player_money order by player_id, currency"),
            "changes": self.rows("select player_id, reason, change_seq from crm.player_changes order by 1, 2"),
            "quarantine": self.rows("select stream, reason, field, row_key from crm.quarantine order by 1, 2, 3, 4"),
        }

    def assert_is(self, expected: Expected) -> None:
        """Compare events and both kinds of totals with what was summed from the rows."""
        assert self.events() == expected.events
        assert self.base() == {key: total for key, total in expected.base.items() if total}
        assert self.native() == {key: total for key, total in expected.native.items() if total}
        bets = {
            row["external_id"]: row["bet_count"] for row in self.rows("select * from crm.players") if row["bet_count"]
        }
        assert bets == {player: count for player, count in expected.bets.items() if count}


# Every dialect ------------------------------------------------------------------------------------------------------


def test_what_the_views_hold_arrives_with_exact_totals(casino: Casino, store: Database, crm: Crm) -> None:
    """Events, totals in base subunits and native money equal sums made here; a second run changes nothing."""
    casino.play(since=LONG_AGO, first=1)
    settings = settings_of(casino.operator, store, **ALL, source={"page_rows": 7})

    assert run(settings) == {}
    crm.assert_is(casino.expected)
    assert {row["external_id"]: row["default_currency_code"] for row in crm.rows("select * from crm.players")} == {
        f"{number:05}": CURRENCIES[number % 4] for number in range(8)
    }
    before = crm.everything()
    assert before["quarantine"] == []

    assert run(settings) == {}
    assert crm.everything() == before


def test_new_rows_are_picked_up_by_the_next_run(casino: Casino, store: Database, crm: Crm) -> None:
    """A run goes on where the last one ended, to the heads it finds at its start."""
    settings = settings_of(casino.operator, store, **ALL, source={"page_rows": 7})
    for round_ in range(3):
        casino.play(since=LONG_AGO + timedelta(hours=round_), first=1 + 20 * round_, rows=20)
        assert run(settings) == {}
        crm.assert_is(casino.expected)


def test_events_carry_what_the_row_says(casino: Casino, store: Database, crm: Crm) -> None:
    """The native amount to its last digit, business time in microseconds, the locked rate, ids with their zeros."""
    at = datetime(2026, 3, 29, 1, 30, 0, 678901, tzinfo=UTC)
    casino.user("00123", currency="GBP")
    casino.deposit("00042", "00123", "1234567890.123456", "GBP", at=at)
    assert run(settings_of(casino.operator, store, deposits={}, user_profile={})) == {}
    (event,) = crm.rows("select * from crm.events")
    assert (event["brand_id"], event["external_id"], event["transaction_id"]) == (BRAND, "00123", "00042")
    assert (event["amount"], event["currency"], event["fx_rate_locked"]) == (
        *(Decimal("1234567890.123456"), "GBP"),
        Decimal("1.17"),
    )
    assert event["amount_base"] == 144444443144
    assert event["occurred_at"] == at
    assert event["history"] is True


# The shapes of casino views -----------------------------------------------------------------------------------------


def test_bets_and_wins_in_views_of_their_own(pg_casino: Casino, store: Database, crm: Crm) -> None:
    """`separate`: wagered comes from casino_bets, won from casino_wins."""
    casino = Casino(pg_casino.operator)
    casino.operator.execute("drop view casino_bets", "drop table casino_bets_rows")
    casino.create("casino_bets", "casino_wins", casino_bets=_TABLES["casino_bets"].replace("type varchar(20), ", ""))
    for number in range(1, 21):
        amount = Decimal(f"{number}.125")
        bet = (number, BRAND, "7", text(LONG_AGO), amount, None, "EUR", "g1", "Book of Tests")
        casino.operator.fill("casino_bets_rows", [bet])
        casino.expected.add("casino_bets", str(number), "bet_placed", "7", ("wagered", 1, amount, "EUR"))
        casino.expected.bets["7"] += 1
        if number % 3 == 0:
            win = (number + 1000, BRAND, "7", str(number), text(LONG_AGO), amount * 2, "EUR", "g1", "Book of Tests")
            casino.operator.fill("casino_wins_rows", [win])
            casino.expected.add("casino_wins", str(number + 1000), "bet_settled", "7", ("won", 1, amount * 2, "EUR"))
    streams = {"casino_bets": {"mode": "separate", "start": "beginning"}, "casino_wins": {"start": "beginning"}}
    assert run(settings_of(casino.operator, store, **streams)) == {}
    crm.assert_is(casino.expected)


def test_one_row_per_bet_counts_stake_and_win(pg_casino: Casino, store: Database, crm: Crm) -> None:
    """`win_per_bet`: each row settles its bet, even when nothing was won."""
    casino = Casino(pg_casino.operator)
    casino.operator.execute("drop view casino_bets", "drop table casino_bets_rows")
    casino.create("casino_bets", casino_bets=_TABLES["casino_bets"].replace("type varchar(20), ", ""))
    for number in range(1, 21):
        stake, won = Decimal(f"{number}.335"), Decimal(number if number % 4 == 0 else 0)
        casino.operator.fill(
            "casino_bets_rows", [(number, BRAND, "7", text(LONG_AGO), stake, won, "GBP", "g1", "Book of Tests")]
        )
        casino.expected.add("casino_bets", str(number), "bet_settled", "7", ("won", 1, won, "GBP"))
        casino.expected.add("stakes", str(number), "", "7", ("wagered", 1, stake, "GBP"))
        del casino.expected.events["stakes", str(number), ""]
        casino.expected.bets["7"] += 1
    assert run(settings_of(casino.operator, store, casino_bets={"mode": "win_per_bet", "start": "beginning"})) == {}
    crm.assert_is(casino.expected)
    (player,) = crm.rows("select * from crm.players")
    assert player["ggr"] == player["total_wagered"] - player["total_won"]


# Players and their events -------------------------------------------------------------------------------------------


def test_an_unknown_player_is_a_stub_until_the_profile_comes(pg_casino: Casino, store: Database, crm: Crm) -> None:
    """Its events are stored at once; amounts without a currency enter the totals when the player's own is known."""
    pg_casino.deposit("d1", "7", "10.50", None, at=LONG_AGO)
    pg_casino.deposit("d2", "7", "1.25", "EUR", at=LONG_AGO)
    settings = settings_of(pg_casino.operator, store, user_profile={}, deposits={})
    assert run(settings) == {}
    (player,) = crm.rows("select * from crm.players")
    assert (player["is_stub"], player["total_deposited"]) == (True, 125)
    assert crm.native() == {("7", "EUR", "deposited"): Decimal("1.25")}

    pg_casino.user("7", currency="GBP")
    assert run(settings) == {}

    (player,) = crm.rows("select * from crm.players join crm.player_contacts using (player_id)")
    assert (player["is_stub"], player["email"], player["default_currency_code"]) == (
        False,
        "player7@example.com",
        "GBP",
    )
    assert player["total_deposited"] == 125 + 1228
    assert crm.native() == {("7", "EUR", "deposited"): Decimal("1.25"), ("7", "GBP", "deposited"): Decimal("10.50")}
    event = crm.rows("select * from crm.events where transaction_id = 'd1'")[0]
    assert (event["currency"], event["amount_base"], event["fx_rate_locked"]) == ("GBP", 1228, Decimal("1.17"))
    assert crm.rows("select * from crm.fx_pending") == []


def test_a_currency_that_comes_after_the_profile_completes_amounts_too(
    pg_casino: Casino, store: Database, crm: Crm
) -> None:
    """A profile without a currency is no stub; what waits for the currency is settled when it is there."""
    pg_casino.user("7", currency=None)
    pg_casino.deposit("d1", "7", "10.00", None, at=LONG_AGO)
    settings = settings_of(pg_casino.operator, store, user_profile={}, deposits={})
    assert run(settings) == {}
    assert crm.base() == {}
    pg_casino.user("7", currency="GBP", at=LONG_AGO + timedelta(hours=1))
    assert run(settings) == {}
    assert crm.base() == {("7", "deposited"): 1170}
    assert crm.rows("select * from crm.fx_pending") == []


def test_the_newest_profile_wins(casino: Casino, store: Database, crm: Crm) -> None:
    """A user rewritten in place is read again; what the store shows is the last state."""
    casino.user("1", status="ACTIVE")
    casino.user("2", status="SUSPENDED")
    settings = settings_of(casino.operator, store, user_profile={})
    assert run(settings) == {}
    assert {row["external_id"]: row["marketable"] for row in crm.rows("select * from crm.players")} == {
        "1": True,
        "2": False,
    }
    casino.user("1", status="SELF_EXCLUDED", at=LONG_AGO + timedelta(days=1))
    assert run(settings) == {}
    statuses = {row["external_id"]: (row["status"], row["marketable"]) for row in crm.rows("select * from crm.players")}
    assert statuses == {"1": ("self_excluded", False), "2": ("banned", False)}


# Rows that are wrong ------------------------------------------------------------------------------------------------

_TEXT_DEPOSITS: Final = (
    "dt_finalized timestamptz, ext_brand_id text, user_ext_id text, transaction_id text, transaction_date text, "
    "deposit_amount text, currency text, is_rollback text"
)
#: A deposit's key -> (player, business time, amount, rollback), and why it is refused.
BAD_DEPOSITS: Final = {
    "word": (("7", "2026-01-05 12:00:00", "abc", "f"), ("not a finite number of at most 20 digits", "deposit_amount")),
    "nan": (("7", "2026-01-05 12:00:00", "NaN", "f"), ("not a finite number of at most 20 digits", "deposit_amount")),
    "none": (("7", "2026-01-05 12:00:00", None, "f"), ("missing", "deposit_amount")),
    "minus": (("7", "2026-01-05 12:00:00", "-5.00", "f"), ("negative amount", "deposit_amount")),
    "huge": (("7", "2026-01-05 12:00:00", "1e13", "f"), ("amount too large to be true", "deposit_amount")),
    "nobody": ((None, "2026-01-05 12:00:00", "5.00", "f"), ("missing", "user_ext_id")),
    "when": (("7", "yesterday", "5.00", "f"), ("not a timestamp", "transaction_date")),
    "never": (("7", "infinity", "5.00", "f"), ("not a timestamp", "transaction_date")),
}


def test_a_bad_row_costs_itself(pg_casino: Casino, store: Database, crm: Crm) -> None:
    """It lies in the quarantine with reason, field and its own texts; the rows around it are events."""
    casino = Casino(pg_casino.operator)
    casino.operator.execute("drop view deposits", "drop table deposits_rows")
    casino.create("deposits", deposits=_TEXT_DEPOSITS)
    rows = [
        (text(LONG_AGO), BRAND, player, key, at, amount, "EUR", back)
        for key, ((player, at, amount, back), _) in BAD_DEPOSITS.items()
    ]
    good = [(text(LONG_AGO), BRAND, "7", f"good{n}", text(LONG_AGO), "1.00", "EUR", "f") for n in range(5)]
    casino.operator.fill("deposits_rows", [*rows, *good])
    casino.operator.fill(
        "deposits_rows", [(text(LONG_AGO), BRAND, "7", "perhaps", text(LONG_AGO), "1.00", "EUR", "perhaps")]
    )

    assert run(settings_of(casino.operator, store, deposits={})) == {}

    refused = crm.rows("select * from crm.quarantine where not kept")
    assert {row["row_key"]: (row["reason"], row["field"]) for row in refused} == {
        key: why for key, (_, why) in BAD_DEPOSITS.items()
    }
    word = next(row for row in refused if row["row_key"] == "word")
    assert word["raw"]["deposit_amount"] == "abc"
    assert (word["transaction_id"], word["brand_id"], word["external_id"]) == ("word", BRAND, "7")
    assert set(crm.events()) == {
        ("deposits", key, "deposit_confirmed") for key in ("perhaps", *(f"good{n}" for n in range(5)))
    }
    (kept,) = crm.rows("select * from crm.quarantine where kept")
    assert (kept["row_key"], kept["reason"], kept["field"]) == ("perhaps", "not a boolean", "is_rollback")
    assert crm.base() == {("7", "deposited"): 600}


def test_a_row_without_a_key_costs_itself(casino: Casino, store: Database, crm: Crm) -> None:
    """A NULL transaction id has no place in the order: it is not read, and the rows tied with it are events."""
    for number in range(6):
        casino.deposit(f"d{number}", "7", "1.00", "EUR", at=LONG_AGO)
    for _ in range(2):
        casino.operator.fill(
            "deposits_rows", [(text(LONG_AGO), BRAND, "7", None, text(LONG_AGO), "5.00", "EUR", False)]
        )
    casino.deposit("later", "7", "1.00", "EUR", at=LONG_AGO + timedelta(seconds=1))
    assert run(settings_of(casino.operator, store, deposits={}, source={"page_rows": 2})) == {}
    crm.assert_is(casino.expected)


def test_a_row_that_changed_is_counted_and_not_added(pg_casino: Casino, store: Database, crm: Crm) -> None:
    """The same key with another amount leaves event and totals as they were; both versions lie in the quarantine."""
    soon = now() - timedelta(seconds=20)
    pg_casino.deposit("d1", "7", "10.00", "EUR", at=soon)
    settings = settings_of(pg_casino.operator, store, deposits={})
    assert run(settings) == {}
    pg_casino.operator.execute("update deposits_rows set deposit_amount = 11")
    assert run(settings) == {}
    crm.assert_is(pg_casino.expected)
    (changed,) = crm.rows("select * from crm.quarantine")
    assert (changed["reason"], changed["row_key"]) == ("changed", "d1")
    assert (float(changed["raw"]["old"]["amount"]), float(changed["raw"]["new"]["amount"])) == (10, 11)


def test_a_key_that_repeats_is_one_event(casino: Casino, store: Database, crm: Crm) -> None:
    """A view that shows a row twice, at once or on a later page, counts it once."""
    casino.deposit("d1", "7", "10.00", "EUR", at=LONG_AGO)
    row = (BRAND, "7", "d1", text(LONG_AGO), "10.00", "EUR", False)
    casino.operator.fill("deposits_rows", [(text(LONG_AGO), *row), (text(LONG_AGO + timedelta(seconds=5)), *row)])
    assert run(settings_of(casino.operator, store, deposits={}, source={"page_rows": 2})) == {}
    crm.assert_is(casino.expected)


# Where reading begins and what it leaves ----------------------------------------------------------------------------


def test_start_now_leaves_history_out(casino: Casino, store: Database, crm: Crm) -> None:
    """Rows older than `lateness` at the first start are never events; rows that come after it are, and live."""
    for number in range(1, 30):
        casino.bet(number, "7", "BET", "1.00", "EUR", at=LONG_AGO)
    casino.deposit("old", "7", "1.00", "EUR", at=LONG_AGO)
    settings = settings_of(casino.operator, store, casino_bets={}, deposits={"start": "now"})
    assert run(settings) == {}
    assert crm.events() == Counter()

    casino.expected = Expected()
    casino.bet(30, "7", "BET", "2.00", "EUR", at=now())
    casino.deposit("new", "7", "2.00", "EUR", at=now())
    assert run(settings) == {}
    crm.assert_is(casino.expected)
    assert {row["history"] for row in crm.rows("select * from crm.events")} == {False}


def test_start_at_a_position_leaves_older_rows_out(casino: Casino, store: Database, crm: Crm) -> None:
    """`start: <position>` is where reading begins: rows below it are not read."""
    for hour in range(5):
        casino.deposit(f"d{hour}", "7", "1.00", "EUR", at=LONG_AGO + timedelta(hours=hour))
    start = text(LONG_AGO + timedelta(hours=2))
    assert run(settings_of(casino.operator, store, deposits={"start": start})) == {}
    assert {key for _, key, _ in crm.events()} == {"d2", "d3", "d4"}


def test_rows_of_the_first_start_are_history(
    casino: Casino, store: Database, crm: Crm, wait: Callable[..., Any]
) -> None:
    """`history_until` is the head of the first start: what is at or below is history, whoever reads it; above is live."""
    for number in range(1, 5):
        casino.deposit(f"d{number}", "7", "1.00", "EUR", at=LONG_AGO + timedelta(microseconds=number))
        casino.bet(number, "7", "BET", "1.00", "EUR", at=LONG_AGO)
    settings = settings_of(casino.operator, store, deposits={}, casino_bets={"start": "beginning"})
    assert run(settings) == {}
    casino.deposit("same", "7", "1.00", "EUR", at=LONG_AGO + timedelta(microseconds=4))
    casino.deposit("next", "7", "1.00", "EUR", at=LONG_AGO + timedelta(microseconds=5))
    casino.bet(5, "7", "BET", "1.00", "EUR", at=LONG_AGO)
    app = application.build(settings)
    try:
        wait(lambda: app.cycles[0].run_once() and crm.events() == casino.expected.events, what="the new rows are read")
    finally:
        app.close()
    live = {row["key"] for row in crm.rows("select * from crm.events where not history")}
    assert live == {"next", "5"}
    crm.assert_is(casino.expected)


def test_rows_without_a_cursor_wait_and_are_counted(casino: Casino, store: Database, crm: Crm) -> None:
    """A NULL dt_finalized means not final: counted on the checkpoint, read when the stamp is set."""
    casino.deposit("d1", "7", "1.00", "EUR", at=LONG_AGO)
    casino.operator.fill("deposits_rows", [(None, BRAND, "7", "d2", text(LONG_AGO), "5.00", "EUR", False)])
    settings = settings_of(casino.operator, store, deposits={})
    assert run(settings) == {}
    crm.assert_is(casino.expected)
    assert [row["null_cursors"] for row in crm.rows("select * from crm.checkpoints")] == [1]
    casino.operator.execute(f"update deposits_rows set dt_finalized = '{text(now())}' where dt_finalized is null")
    assert run(settings) == {}
    assert crm.base() == {("7", "deposited"): 600}
    assert [row["null_cursors"] for row in crm.rows("select * from crm.checkpoints")] == [0]


def test_rows_of_the_future_wait_until_they_are_due(
    casino: Casino, store: Database, crm: Crm, wait: Callable[..., Any]
) -> None:
    """They are counted and left at the source, and never move the position; when due they are events."""
    due = now() + timedelta(seconds=2)
    casino.deposit("d1", "7", "1.00", "EUR", at=LONG_AGO)
    casino.deposit("soon", "7", "1.00", "EUR", at=due)
    app = application.build(settings_of(casino.operator, store, deposits={}, source={"tolerance": "0s"}))
    try:
        app.cycles[0].run_once()
        if now() < due:
            assert {key for _, key, _ in crm.events()} == {"d1"}
            assert [row["future_rows"] for row in crm.rows("select * from crm.checkpoints")] == [1]
            casino.deposit("between", "7", "1.00", "EUR", at=LONG_AGO + timedelta(hours=1))
        wait(
            lambda: app.cycles[0].run_once() and now() > due and len(crm.events()) == 3, what="the row is read when due"
        )
    finally:
        app.close()
    crm.assert_is(casino.expected)


def test_rows_dated_far_ahead_are_shown_in_quarantine(casino: Casino, store: Database, crm: Crm) -> None:
    """More than a day ahead of the source's clock is a mistake: kept whole with its reason, and never a head."""
    casino.deposit("d1", "7", "1.00", "EUR", at=LONG_AGO)
    far = "update deposits_rows set transaction_id = 'far', dt_finalized = '2199-01-01 00:00:00'"
    casino.operator.execute(far)
    casino.deposit("d2", "7", "1.00", "EUR", at=LONG_AGO + timedelta(hours=1))
    assert run(settings_of(casino.operator, store, deposits={})) == {}
    assert "far" not in {key for _, key, _ in crm.events()}
    (shown,) = {(row["reason"], row["transaction_id"]) for row in crm.rows("select * from crm.quarantine")}
    assert shown == ("dated more than a day ahead", "far")


# What the tail passes by --------------------------------------------------------------------------------------------


def test_rows_that_appear_behind_the_tail_are_found_by_the_sweep(
    casino: Casino, store: Database, crm: Crm, wait: Callable[..., Any]
) -> None:
    """A stamp or an id below what was read, committed late, is counted once, and only then the marks seal it."""
    casino.deposit("d1", "7", "1.00", "EUR", at=now() - timedelta(seconds=5))
    source = {"lateness": "2s", "tolerance": "0s"}
    settings = settings_of(casino.operator, store, deposits={}, casino_bets={"start": "beginning"}, source=source)
    app = application.build(settings)
    try:
        app.cycles[0].run_once()
        began = now()
        casino.deposit("d3", "7", "1.00", "EUR", at=began)
        casino.bet(10, "7", "BET", "1.00", "EUR", at=began)
        casino.bet(12, "7", "BET", "1.00", "EUR", at=began)
        wait(lambda: app.cycles[0].run_once() and len(crm.events()) == 4, what="the tail reads what is visible")
        casino.deposit("d2", "7", "3.00", "EUR", at=began - timedelta(milliseconds=100))
        casino.bet(11, "7", "WIN", "5.00", "EUR", at=began)

        def found() -> bool:
            app.cycles[0].run_once()
            # not behind the tail: a silent standby tells no progress, and nobody would look for the last of them
            casino.deposit(f"on{len(casino.expected.events)}", "8", "1.00", "EUR", at=now())
            return {("deposits", "d2"), ("casino_bets", "11")} <= {(stream, key) for stream, key, _ in crm.events()}

        wait(found, what="the sweep finds the late rows")
        wait(lambda: app.cycles[0].run_once() and crm.events() == casino.expected.events, what="the last rows are read")
    finally:
        app.close()
    crm.assert_is(casino.expected)
