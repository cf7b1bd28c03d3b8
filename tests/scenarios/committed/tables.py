"""The operator's tables: how they are made, what a row of them is, and what their columns keep of a stamp."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
import pymysql

if TYPE_CHECKING:
    from collections.abc import Sequence

Precision = Literal["fine", "coarse"]

BRAND: Final = "kaasino"
SECOND: Final = 1_000_000
#: The time when every scenario begins, in microseconds since 1970 as all of its times.
START: Final = int(datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()) * SECOND
KEYS: Final = {"user_profile": "user_ext_id", "deposits": "transaction_id", "casino_bets": "id"}
#: What an operator rewrites on a row that was final long ago: nothing that the row's event is about.
TOUCHED: Final = {"deposits": "real_balance", "casino_bets": "game_category"}

_STAMPS: Final = {
    ("postgresql", "fine"): "timestamptz",
    ("postgresql", "coarse"): "timestamp(0)",
    ("mysql", "fine"): "datetime(6)",
    ("mysql", "coarse"): "datetime(0)",
}
_EXACT: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_SCHEMA: Final = """
    create table user_profile_rows (
        dt_update {stamp} not null, ext_brand_id varchar(20), user_ext_id varchar(20), core_account_status varchar(20),
        core_registration_date {exact}, core_user_language varchar(5), core_wallet_currency varchar(5),
        user_first_name varchar(20), primary key (ext_brand_id, user_ext_id));
    create index user_profile_place on user_profile_rows (dt_update, ext_brand_id, user_ext_id);
    create table deposits_rows (
        transaction_id varchar(20) primary key, dt_finalized {stamp} not null, ext_brand_id varchar(20),
        user_ext_id varchar(20), transaction_date {exact}, deposit_amount decimal(12,2), currency varchar(5),
        real_balance decimal(12,2));
    create index deposits_place on deposits_rows (dt_finalized, transaction_id);
    create table casino_bets_rows (
        id bigint primary key, ext_brand_id varchar(20), user_ext_id varchar(20), type varchar(20), bet_date {exact},
        bet_amount decimal(12,2), win_amount decimal(12,2), currency varchar(5), game_id varchar(5),
        game_name varchar(20), game_category varchar(20));
    create view user_profile as select * from user_profile_rows;
    create view deposits as select * from deposits_rows;
    create view casino_bets as select * from casino_bets_rows
"""


@dataclass(frozen=True)
class Row:
    """A row of a view. `mark` is its cursor as the column keeps it: an id, or nanoseconds; `amount` is in cents."""

    stream: str
    key: str
    mark: int
    user: str
    amount: int = 0
    name: str = ""

    @property
    def place(self) -> tuple[int, tuple[str, ...]]:
        """Return where the row stands in its view's order."""
        return self.mark, (BRAND, self.key) if self.stream == "user_profile" else (self.key,)


def schema(family: str, precision: Precision) -> list[str]:
    """Return the statements that create tables and views."""
    return _SCHEMA.format(stamp=_STAMPS[family, precision], exact=_EXACT[family]).split(";")


def mark_of(stamp: int, family: str, precision: Precision) -> int:
    """Return what a time column keeps of a stamp, in nanoseconds: PostgreSQL rounds to its precision, MariaDB cuts."""
    if precision == "fine":
        return stamp * 1000
    return (stamp + (SECOND // 2 if family == "postgresql" else 0)) // SECOND * SECOND * 1000


def written(stamp: int) -> str:
    """Return a stamp as both servers take it, in UTC."""
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=stamp):%Y-%m-%d %H:%M:%S.%f}"


def new_user(user: str, stamp: int, name: str) -> tuple[object, ...]:
    """Return a row of user_profile."""
    return written(stamp), BRAND, user, "ACTIVE", written(START), "EN", "EUR", name


def new_deposit(key: str, user: str, stamp: int, cents: int) -> tuple[object, ...]:
    """Return a row of deposits."""
    return key, written(stamp), BRAND, user, written(stamp), _money(cents), "EUR", "0"


def new_bet(number: int, user: str, stamp: int, cents: int) -> tuple[object, ...]:
    """Return a row of casino_bets."""
    return number, BRAND, user, "BET", written(stamp), _money(cents), None, "EUR", "g1", "Book of Tests", "slots"


def insert(connection: Any, stream: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows into a stream's table, in one statement."""
    marks = ", ".join(["(" + ", ".join(["%s"] * len(rows[0])) + ")"] * len(rows))
    connection.cursor().execute(f"insert into {stream}_rows values {marks}", [value for row in rows for value in row])


def rewrite_user(connection: Any, user: str, stamp: int, name: str) -> None:
    """Update a user; by the whole key, column by column: MariaDB locks what it looks at, and looks at all of a tuple's."""
    query = """
        update user_profile_rows set dt_update = %s, user_first_name = %s
        where ext_brand_id = %s and user_ext_id = %s
    """
    connection.cursor().execute(query, (written(stamp), name, BRAND, user))


def session(operator: Any) -> Any:
    """Open a session of the owner's that waits for no lock: to wait would be a mistake of the scenario."""
    if operator.family == "postgresql":
        return psycopg.connect(operator.owner, options="-c timezone=UTC -c lock_timeout=2000")
    login, _, place = operator.owner.removeprefix("mysql://").partition("@")
    (user, _, password), (address, _, name) = login.partition(":"), place.partition("/")
    host, _, port = address.partition(":")
    return pymysql.connect(
        host=host,
        port=int(port),
        user=user,
        password=password,
        database=name,
        init_command="set time_zone = '+00:00', innodb_lock_wait_timeout = 2, tx_isolation = 'READ-COMMITTED'",
    )


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
