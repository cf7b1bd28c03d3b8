"""A sports bet's life moves its player's totals exactly once, in whatever order its views are read, and read again."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from psycopg.rows import dict_row

from connector import app as application, audit, config, evidence
from connector.store.audits import Outcome
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.store.database import Database

OperatorDatabase = Any
BEGAN: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
RATES: Final = {"EUR": Decimal(1), "GBP": Decimal("1.17")}
_ID: Final = "id bigint primary key, ext_brand_id varchar(20), user_ext_id varchar(40)"
TABLES: Final = {
    "sport_bet_open": f"{_ID}, bet_id varchar(20), bet_date STAMP, bet_amount MONEY, currency varchar(5), "
    "is_rollback boolean",
    "sport_bet_selection_open": f"{_ID}, bet_id varchar(20), selection_id varchar(20), bet_date STAMP, odds MONEY",
    "sport_bet_settled": f"{_ID}, bet_id varchar(20), settlement_date STAMP, bet_status varchar(20), bet_amount MONEY, "
    "win_amount MONEY, cashout_amount MONEY, currency varchar(5), is_rollback boolean",
    "sport_bet_selection_settled": f"{_ID}, bet_id varchar(20), selection_id varchar(20), settled_at STAMP, "
    "selection_status varchar(20)",
    "casino_bets": f"{_ID}, type varchar(20), bet_date STAMP, bet_amount MONEY, win_amount MONEY, currency varchar(5), "
    "game_id varchar(20), game_name varchar(40)",
    "failed_deposits": "dt_finalized STAMP, ext_brand_id varchar(20), user_ext_id varchar(40), "
    "transaction_id varchar(20), status varchar(20), transaction_date STAMP, deposit_amount MONEY, currency varchar(5)",
    "bonuses": f"{_ID}, bonus_id varchar(20), status varchar(20), bonus_date STAMP, bonus_amount MONEY, "
    "currency varchar(5)",
}
_TYPES: Final = {
    "postgresql": {"STAMP": "timestamptz", "MONEY": "numeric(24,6)"},
    "mysql": {"STAMP": "datetime(6)", "MONEY": "decimal(24,6)"},
}


@dataclass
class Book:
    """An operator's sportsbook, and the store that reads it."""

    operator: OperatorDatabase
    store: Database
    crm: psycopg.Connection[dict[str, Any]]
    number: int = 0

    def create(self) -> None:
        """Create tables and views."""
        for name, columns in TABLES.items():
            typed = columns
            for word, kind in _TYPES[self.operator.family].items():
                typed = typed.replace(word, kind)
            self.operator.execute(
                f"create table {name}_rows ({typed})", f"create view {name} as select * from {name}_rows"
            )

    def add(self, name: str, *values: object, player: str = "7") -> None:
        """Add a row of a view whose cursor is an id."""
        self.number += 1
        self.operator.fill(f"{name}_rows", [(self.number, "kaasino", player, *values)])

    def placed(self, bet: str, stake: str, *, currency: str = "EUR", back: bool = False, player: str = "7") -> None:
        """Place a bet, with one selection, or take the placing back."""
        self.add("sport_bet_open", bet, self.now, stake, currency, back, player=player)
        self.add("sport_bet_selection_open", bet, f"{bet}-{self.number}", self.now, "1.85", player=player)

    def settled(
        self,
        bet: str,
        status: str,
        *amounts: str | None,
        currency: str = "EUR",
        back: bool = False,
        player: str = "7",
    ) -> None:
        """Settle a bet; `amounts` are its stake, its win and what it was cashed out for."""
        self.add("sport_bet_settled", bet, self.now, status, *amounts, currency, back, player=player)
        self.add("sport_bet_selection_settled", bet, f"{bet}-{self.number}", self.now, status, player=player)

    @property
    def now(self) -> str:
        """Return the business time of the next row: each comes a minute after the one before."""
        return _text(self.at)

    @property
    def at(self) -> datetime:
        """Return the same as an instant."""
        return BEGAN + timedelta(minutes=self.number)

    def settings(self, *names: str) -> config.Config:
        """Return a configuration that reads these views, all if none is named."""
        source = {
            "name": "casino",
            "url": self.operator.url,
            "lateness": "1s",
            "page_rows": 3,
            "streams": {name: {"start": "beginning"} for name in names or TABLES},
        }
        document = {
            "tenant": "kaasino",
            "store": {"url": self.store.url},
            "base_currency": "EUR",
            "fx": {"fixed": {name: str(rate) for name, rate in RATES.items() if name != "EUR"}},
            "sources": [source],
            "web": None,
        }
        return config.parse(document, streams=list(STREAMS))

    def read(self, *names: str) -> None:
        """Read these views to their heads, all if none is named."""
        assert application.build(self.settings(*names), once=True).run_once(threading.Event()) == {}

    def read_again(self) -> None:
        """Read every row once more, as after the loss of all positions."""
        self.crm.execute("delete from crm.checkpoints")
        self.read()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Ask the store."""
        return self.crm.execute(query.encode()).fetchall()

    def totals(self, player: str = "7") -> dict[str, Any]:
        """Return what the store says of a player's bets."""
        return self.rows(f"select {', '.join(_TOTALS)} from crm.players where external_id = '{player}'")[0]


_TOTALS: Final = (
    *("total_wagered", "total_won", "bet_count", "sport_wagered", "sport_won", "sport_bet_count"),
    *("vertical_activity", "last_bet_at", "last_sport_bet_at", "last_casino_bet_at"),
)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def _counts(totals: dict[str, Any], prefix: str = "total") -> tuple[int, int, int]:
    bets = "bet_count" if prefix == "total" else f"{prefix}_bet_count"
    return totals[f"{prefix}_wagered"], totals[f"{prefix}_won"], totals[bets]


@pytest.fixture
def book(operator: OperatorDatabase, store: Database) -> Iterator[Book]:
    """Give an empty sportsbook."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        made = Book(operator, store, connection)
        made.create()
        yield made


@pytest.fixture
def pg_book(operator_of: Callable[[str], OperatorDatabase], store: Database) -> Iterator[Book]:
    """Give an empty sportsbook on PostgreSQL."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        made = Book(operator_of("postgresql"), store, connection)
        made.create()
        yield made


def _a_week(book: Book) -> None:
    """A bet of each fate, and one in the casino."""
    book.placed("won", "10.00")
    book.placed("lost", "20.00")
    book.placed("void", "40.00")
    book.placed("cashed", "80.00")
    book.placed("half", "160.00", currency="GBP")
    book.placed("open", "5.00")
    book.placed("undone", "7.00")
    book.placed("undone", "7.00", back=True)
    book.settled("won", "WON", "10.00", "25.50", None)
    book.settled("lost", "LOST", "20.00", None, None)
    book.settled("void", "VOID", "40.00", "40.00", None)
    book.settled("cashed", "CASHOUT", "80.00", None, "61.25")
    book.settled("half", "HALF_LOST", "160.00", "80.00", None, currency="GBP")
    book.add("casino_bets", "BET", book.now, "3.00", None, "EUR", "g1", "Book of Tests")
    book.add("casino_bets", "WIN", book.now, None, "1.00", "EUR", "g1", "Book of Tests")


#: 10 + 20 + 80 + 5 euros and 160 pounds; 25.50 + 61.25 euros and 80 pounds: won, lost, cashed, open, half.
WAGERED, WON, COUNT = 11_500 + 18_720, 8_675 + 9_360, 5


@pytest.mark.parametrize(
    "order",
    [
        [()],
        [("sport_bet_settled", "sport_bet_selection_settled"), ()],
        [("sport_bet_selection_settled",), ("sport_bet_settled",), ("sport_bet_selection_open",), ("casino_bets",), ()],
    ],
    ids=["as a cycle reads", "settled first", "backwards"],
)
def test_each_fate_of_a_bet_moves_its_totals_once(pg_book: Book, order: list[tuple[str, ...]]) -> None:
    """Wagered, won, number of bets, the sportsbook's part and the split by vertical, however often and in what order."""
    _a_week(pg_book)
    for names in order:
        pg_book.read(*names)
    totals = pg_book.totals()
    assert _counts(totals) == (WAGERED + 300, WON + 100, COUNT + 1)
    assert _counts(totals, "sport") == (WAGERED, WON, COUNT)
    assert totals["vertical_activity"] == {
        "casino": {
            "wagered": 300,
            "won": 100,
            "ggr": 200,
            "bet_count": 1,
            "last_bet_at": "2026-01-05T12:26:00.000000Z",
        },
        "sportsbook": {
            "wagered": WAGERED,
            "won": WON,
            "ggr": WAGERED - WON,
            "bet_count": COUNT,
            "last_bet_at": "2026-01-05T12:12:00.000000Z",
        },
    }
    assert totals["last_sport_bet_at"] == BEGAN + timedelta(minutes=12)
    assert totals["last_bet_at"] == totals["last_casino_bet_at"] == BEGAN + timedelta(minutes=26)

    before = pg_book.rows("select * from crm.event_rows order by seq")
    pg_book.read()
    pg_book.read_again()
    assert pg_book.totals() == totals
    assert pg_book.rows("select * from crm.event_rows order by seq") == before
    assert pg_book.rows("select * from crm.quarantine") == []


def test_every_row_of_the_sportsbook_is_its_event(pg_book: Book) -> None:
    """Names and numbers of events; each native total per currency."""
    _a_week(pg_book)
    pg_book.read()
    names = Counter(row["name"] for row in pg_book.rows("select name from crm.events where stream like 'sport%'"))
    assert names == {
        "sport_bet_placed": 7,
        "custom_sport_bet_rolled_back": 1,
        "custom_sport_bet_selection_open": 8,
        "sport_bet_settled": 3,
        "sport_bet_voided": 1,
        "sport_cashout": 1,
        "custom_sport_bet_selection_settled": 5,
    }
    money = pg_book.rows("select currency, wagered, won, bet_count from crm.player_money order by currency")
    assert [tuple(row.values()) for row in money] == [
        ("EUR", Decimal(118), Decimal("87.75"), 5),
        ("GBP", Decimal(160), Decimal(80), 1),
    ]


@pytest.mark.parametrize(
    ("status", "amounts", "wagered", "won", "count"),
    [
        ("WON", ("10", "25", None), 1000, 2500, 1),
        ("LOST", ("10", "0", None), 1000, 0, 1),
        ("CASHOUT", ("10", "0", "8.5"), 1000, 850, 1),
        ("VOID", ("10", "10", None), 0, 0, 0),
    ],
)
def test_a_settlement_that_was_wrong_is_taken_back_and_made_again(
    pg_book: Book, status: str, amounts: tuple[str, ...], wagered: int, won: int, count: int
) -> None:
    """First so, then undone, then settled otherwise: the totals follow at each step, in the sportsbook."""
    pg_book.placed("b", "10")
    pg_book.settled("b", status, *amounts)
    pg_book.read()
    assert _counts(pg_book.totals(), "sport") == _counts(pg_book.totals()) == (wagered, won, count)
    pg_book.settled("b", status, *amounts, back=True)
    pg_book.read()
    assert _counts(pg_book.totals(), "sport") == _counts(pg_book.totals()) == (1000, 0, 1)
    pg_book.settled("b", "HALF_WON", "10", "12.75", None)
    pg_book.read()
    pg_book.read_again()
    assert _counts(pg_book.totals(), "sport") == _counts(pg_book.totals()) == (1000, 1275, 1)
    assert pg_book.rows("select * from crm.quarantine") == []


def test_what_fails_and_what_is_given_moves_no_total(pg_book: Book) -> None:
    """Attempts to deposit and bonuses are events with amounts, and nothing more."""
    for status in ("PENDING", "FAILED"):
        row = (pg_book.now, "kaasino", "7", "d1", status, pg_book.now, "25.50", "EUR")
        pg_book.operator.fill("failed_deposits_rows", [row])
    for status in ("ISSUED", "ACTIVE", "WAGER_DONE"):
        pg_book.add("bonuses", "x1", status, pg_book.now, "50.00", "GBP")
    pg_book.read()
    pg_book.read_again()
    found = pg_book.rows("select name, amount_base from crm.events order by name")
    assert [tuple(row.values()) for row in found] == [
        ("bonus_claimed", 5850),
        ("bonus_completed", 5850),
        ("custom_bonus_activated", 5850),
        ("deposit_failed", 2550),
        ("deposit_initiated", 2550),
    ]
    assert _counts(pg_book.totals()) == (0, 0, 0)
    assert pg_book.totals()["vertical_activity"] == {}
    moved = pg_book.rows("select * from crm.player_money where (deposited, wagered, won, bet_count) <> (0, 0, 0, 0)")
    assert moved == []


# Any history --------------------------------------------------------------------------------------------------------

_MONEY: Final = st.integers(0, 100_000).map(lambda cents: Decimal(cents) / 100)
_SETTLEMENTS: Final = st.tuples(
    st.sampled_from(["WON", "LOST", "VOID", "CASHOUT", "HALF_WON", "HALF_LOST"]),
    _MONEY,
    st.none() | _MONEY,
    st.booleans(),
)
_HISTORIES: Final = st.lists(
    st.tuples(st.sampled_from(["1", "2"]), _MONEY, st.booleans(), st.lists(_SETTLEMENTS, max_size=3)), max_size=6
)


def _worth(stake: Decimal, settlement: tuple[str, Decimal, Decimal | None, bool]) -> tuple[Decimal, Decimal, int]:
    """Say what a settlement adds to wagered, won and the number of bets."""
    status, win, cashout, back = settlement
    sign = -1 if back else 1
    if status == "VOID":
        return -sign * stake, Decimal(0), -sign
    paid = {"LOST": Decimal(0), "CASHOUT": win if cashout is None else cashout}.get(status, win)
    return Decimal(0), sign * paid, 0


@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(histories=st.lists(_HISTORIES, min_size=1, max_size=3), orders=st.permutations(list(TABLES)))
def test_any_history_in_any_order_adds_up(pg_book: Book, histories: list[Any], orders: list[str]) -> None:
    """Bets placed, settled, undone and settled again, view after view: the sums are those made here row by row."""
    pg_book.crm.execute("truncate crm.players, crm.checkpoints, crm.event_streams cascade")
    pg_book.operator.execute(*(f"delete from {name}_rows" for name in TABLES))
    expected: Counter[tuple[str, int]] = Counter()
    for history in histories:
        for player, stake, back, settlements in history:
            bet, money = f"b{pg_book.number}", str(stake)
            pg_book.placed(bet, money, back=back, player=player)
            worth = [(-stake if back else stake, Decimal(0), -1 if back else 1)]
            for status, win, cashout, undone in settlements:
                paid = None if cashout is None else str(cashout)
                pg_book.settled(bet, status, money, str(win), paid, back=undone, player=player)
                worth.append(_worth(stake, (status, win, cashout, undone)))
            for total in worth:
                expected.update(
                    {(player, place): int(part * (1 if place == 2 else 100)) for place, part in enumerate(total)}
                )
        for name in orders:
            pg_book.read(name)
    pg_book.read_again()
    for row in pg_book.rows("select external_id from crm.players"):
        player = row["external_id"]
        assert _counts(pg_book.totals(player), "sport") == tuple(expected[player, place] for place in range(3))
        assert _counts(pg_book.totals(player)) == _counts(pg_book.totals(player), "sport")


# The audit ----------------------------------------------------------------------------------------------------------


def test_both_sides_add_up_the_same_amounts(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wins, voided stakes, cash-outs of either column, facts without amounts: no row is compared by itself."""
    _a_week(book)
    book.settled("cashed", "Cash_Out", "80.00", "60.00", None)
    book.add("bonuses", "x1", "ISSUED", book.now, "50.00", "GBP")
    row = (book.now, "kaasino", "7", "d1", "FAILED", book.now, "25.50", "EUR")
    book.operator.fill("failed_deposits_rows", [row])
    book.read()
    book.crm.execute(
        "update crm.checkpoints set sealed_cursor = seen_cursor, sealed_key = seen_key, sealed_mark = seen_mark"
    )
    rows = {name: book.operator.rows(f"select count(*) from {name}")[0][0] for name in TABLES}
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "compare", lambda *_: pytest.fail("a row was compared"))
        for name, number in rows.items():
            assert _audited(book, name) == Outcome(rows=number), name
    book.operator.execute("update sport_bet_settled_rows set cashout_amount = 60 where bet_id = 'cashed'")
    found = _audited(book, "sport_bet_settled")
    assert (found.changed, found.missing, found.gone) == (1, 0, 0)


def _audited(book: Book, name: str) -> Outcome:
    with application.desk(book.settings(), source=None, stream=name, purpose="audit") as desk:
        opened = audit.open_stream(desk, name)
        assert opened is not None
        run = audit.Audit(desk, opened, "command", audit.promised(desk, opened), repair=False)
        run.run()
        return run.outcome
