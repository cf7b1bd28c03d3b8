"""Rows that are wrong, end to end on every dialect: each costs itself, says why in the quarantine, and the rest arrives."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from connector import app as application, config
from connector.sources.dialect import bytes_of
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.errors import ConnectorError
    from connector.store.database import Database

OperatorDatabase = Any
LONG_AGO: Final = "2026-01-05 12:00:00"
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_TEXT: Final = {"postgresql": "text", "mysql": "longtext"}
#: A view of texts, so that it can hold what no column of a good type can.
DEPOSITS: Final = {
    "dt_finalized": "STAMP",
    "ext_brand_id": "TEXT",
    "user_ext_id": "TEXT",
    "transaction_id": "varchar(2000)",
    "transaction_date": "TEXT",
    "deposit_amount": "TEXT",
    "currency": "TEXT",
    "provider_name": "TEXT",
    "note": "TEXT",
}
DEPOSIT: Final = (LONG_AGO, "kaasino", "7", "", LONG_AGO, "1.00", "EUR", None, None)
USERS: Final = {
    "dt_update": "STAMP",
    "ext_brand_id": "varchar(2000)",
    "user_ext_id": "varchar(2000)",
    **dict.fromkeys(
        (
            *("core_account_status", "core_registration_date", "core_user_language", "core_wallet_currency"),
            *("user_birthdate", "user_email", "user_phone", "core_affiliate_id", "tags", "user_first_name"),
        ),
        "TEXT",
    ),
}


@dataclass
class Casino:
    """An operator's views of texts and the store that reads them."""

    operator: OperatorDatabase
    store: Database
    crm: psycopg.Connection[dict[str, Any]]

    def create(self, name: str, columns: dict[str, str], **changes: str) -> None:
        """Create a table and the view over it."""
        stamp, text = _STAMP[self.operator.family], _TEXT[self.operator.family]
        typed = {column: changes.get(column, ddl) for column, ddl in columns.items()}
        ddl = ", ".join(
            f"{column} {kind.replace('STAMP', stamp).replace('TEXT', text)}" for column, kind in typed.items()
        )
        self.operator.execute(f"create table {name}_rows ({ddl})", f"create view {name} as select * from {name}_rows")

    def deposits(self, *rows: dict[str, Any]) -> None:
        """Add deposits; what is left out makes a good one."""
        good = dict(zip(DEPOSITS, DEPOSIT, strict=True))
        self.operator.fill("deposits_rows", [tuple({**good, **row}.values()) for row in rows])

    def users(self, *rows: dict[str, Any]) -> None:
        """Add users; what is left out makes an active one."""
        good = {
            **dict.fromkeys(USERS),
            "dt_update": LONG_AGO,
            "ext_brand_id": "kaasino",
            "core_account_status": "ACTIVE",
        }
        self.operator.fill("user_profile_rows", [tuple({**good, **row}.values()) for row in rows])

    def settings(
        self, *, url: str | None = None, source: dict[str, Any] | None = None, **streams: dict[str, Any]
    ) -> config.Config:
        """Return a configuration that reads these streams."""
        casino = {"name": "casino", "url": url or self.operator.url, "streams": streams, **(source or {})}
        document = {
            "store": {"url": self.store.url},
            "tenant": "kaasino",
            "base_currency": "EUR",
            "sources": [casino],
            "web": None,
        }
        return config.parse(document, streams=list(STREAMS))

    def run(self, **streams: Any) -> dict[str, ConnectorError]:
        """Read to the heads and return what stopped."""
        return application.build(self.settings(**streams), once=True).run_once(threading.Event())

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Ask the store."""
        return self.crm.execute(query.encode()).fetchall()

    def keys(self) -> set[str]:
        """Return the keys of all events."""
        return {row["key"] for row in self.rows("select key from crm.events")}

    def refused(self) -> dict[str, tuple[str, str]]:
        """Return what the quarantine says of rows that are no events: key -> (reason, field)."""
        rows = self.rows("select * from crm.quarantine where not kept")
        return {row["row_key"]: (row["reason"], row["field"]) for row in rows}

    def lost(self) -> set[tuple[str, str, str]]:
        """Return what the quarantine says of fields alone: (key, reason, field)."""
        return {
            (row["row_key"], row["reason"], row["field"])
            for row in self.rows("select * from crm.quarantine where kept")
        }


@pytest.fixture
def casino(operator: OperatorDatabase, store: Database) -> Iterator[Casino]:
    """Give an operator without views on every dialect, and an empty store."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        yield Casino(operator, store, connection)


# Money --------------------------------------------------------------------------------------------------------------

_NOT_FINITE: Final = ("not a finite number of at most 20 digits", "deposit_amount")
#: How an amount may be written, and what becomes of it.
AMOUNTS: Final = {
    "1e-7": Decimal("0.0000001"),
    "2.5E+3": Decimal(2500),
    "-0": Decimal(0),
    ".5": Decimal("0.5"),
    "5.": Decimal(5),
    " 12 ": Decimal(12),
    "0.123456789012345678": Decimal("0.123456789012345678"),
    "NaN": _NOT_FINITE,
    "Infinity": _NOT_FINITE,
    "-Infinity": _NOT_FINITE,
    "1E+30": _NOT_FINITE,
    "1e999999999": _NOT_FINITE,
    "0x10": _NOT_FINITE,
    "1,5": _NOT_FINITE,
    "": ("missing", "deposit_amount"),
    "-0.01": ("negative amount", "deposit_amount"),
    "1e13": ("amount too large to be true", "deposit_amount"),
}


def test_amounts_are_exact_or_refused(casino: Casino) -> None:
    """Exponents and signs of zero are numbers; what is none, or none that money can be, costs its row."""
    casino.create("deposits", DEPOSITS)
    keyed = {f"d{number}": (text, what) for number, (text, what) in enumerate(AMOUNTS.items())}
    casino.deposits(*({"transaction_id": key, "deposit_amount": text} for key, (text, _) in keyed.items()))
    assert casino.run(deposits={}) == {}
    assert {row["key"]: row["amount"] for row in casino.rows("select * from crm.events")} == {
        key: what for key, (_, what) in keyed.items() if isinstance(what, Decimal)
    }
    assert casino.refused() == {key: what for key, (_, what) in keyed.items() if isinstance(what, tuple)}


@pytest.mark.parametrize("operator", ["postgresql", "odbc"], indirect=True)
@pytest.mark.parametrize("type_name", ["numeric", "double precision"])
def test_amounts_of_postgresql_that_are_no_money(casino: Casino, type_name: str) -> None:
    """NaN and the infinities of a numeric or a float are refused; so small and so large ones are told apart."""
    casino.create("deposits", DEPOSITS, deposit_amount=type_name)
    values = {"tiny": "1e-7", "nan": "NaN", "more": "Infinity", "less": "-Infinity", "vast": "1e30", "zero": "-0"}
    casino.deposits(*({"transaction_id": key, "deposit_amount": value} for key, value in values.items()))
    assert casino.run(deposits={}) == {}
    amounts = {row["key"]: row["amount"] for row in casino.rows("select * from crm.events")}
    assert amounts == {"tiny": Decimal("0.0000001"), "zero": Decimal(0)}
    assert casino.refused() == dict.fromkeys(("nan", "more", "less", "vast"), _NOT_FINITE)


def test_a_currency_that_no_index_holds_costs_its_row(casino: Casino) -> None:
    """It would stop the store's transaction; neither is it the player's own currency. Blanks are none at all."""
    casino.create("deposits", DEPOSITS)
    casino.create("user_profile", USERS)
    long = "".join(f"{number:x}" for number in range(4000))
    casino.users(
        {"user_ext_id": "7", "core_wallet_currency": long}, {"user_ext_id": "8", "core_wallet_currency": "EUR"}
    )
    casino.deposits({"transaction_id": "d1", "currency": long}, {"transaction_id": "d2"})
    casino.deposits(
        {"transaction_id": "d3", "currency": None}, {"transaction_id": "d4", "currency": "  ", "user_ext_id": "8"}
    )
    assert casino.run(user_profile={}, deposits={}) == {}
    assert {row["key"]: row["currency"] for row in casino.rows("select * from crm.events")} == {
        "d2": "EUR",
        "d3": None,
        "d4": "EUR",
    }
    assert casino.refused() == {"d1": ("not a currency", "currency")}
    assert ("kaasino|7", "not a currency", "core_wallet_currency") in casino.lost()


# Time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["postgresql", "standby", "odbc"], indirect=True)
@pytest.mark.parametrize("page_rows", [1, 100])
def test_times_beyond_the_calendar(casino: Casino, page_rows: int) -> None:
    """Before the year 1 or after 9999, in cursor or business time, a row is refused; what lies ahead is never a head."""
    casino.create("deposits", DEPOSITS, transaction_date="timestamptz")
    odd = ("-infinity", "0044-03-15 12:00:00+00 BC", "9999-12-31", "10000-01-01", "infinity")
    casino.deposits(
        *({"transaction_id": f"d{n}", "dt_finalized": stamp} for n, stamp in enumerate(odd)),
        *({"transaction_id": f"f{n}", "transaction_date": stamp} for n, stamp in enumerate(odd)),
        {"transaction_id": "good", "dt_finalized": "2026-01-06"},
    )
    assert casino.run(source={"page_rows": page_rows}, deposits={}) == {}
    assert casino.keys() == {"f2", "good"}
    assert casino.refused() == {
        **dict.fromkeys(("d0", "d1"), ("not a timestamp", "dt_finalized")),
        **dict.fromkeys(("d2", "d3", "d4"), ("dated more than a day ahead", "dt_finalized")),
        **dict.fromkeys(("f0", "f1", "f3", "f4"), ("not a timestamp", "transaction_date")),
    }
    (row,) = casino.rows("select * from crm.quarantine where row_key = 'f1'")
    assert row["raw"]["transaction_date"] == "0044-03-15 12:00:00+00 BC"


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
@pytest.mark.parametrize(("page_rows", "mode"), [(1, "TRADITIONAL"), (3, "TRADITIONAL"), (100, "ALLOW_INVALID_DATES")])
def test_zero_dates_of_mysql(casino: Casino, page_rows: int, mode: str) -> None:
    """First, in the middle or last on a page: a stream goes on behind them, whatever the server's mode."""
    casino.operator.execute("set sql_mode = 'ALLOW_INVALID_DATES'")
    casino.create("deposits", DEPOSITS, transaction_date="datetime", note="date")
    zeros = ("0000-00-00", "0000-11-30", "2026-00-00", "2026-01-00")
    casino.deposits(
        *({"transaction_id": f"c{n}{m}", "dt_finalized": zero} for n, zero in enumerate(zeros) for m in range(2)),
        *({"transaction_id": f"f{n}", "transaction_date": zero} for n, zero in enumerate(zeros)),
        {"transaction_id": "kept", "note": "0000-00-00"},
    )
    casino.operator.execute(f"set global sql_mode = '{mode}'")
    try:
        assert casino.run(source={"page_rows": page_rows}, deposits={"extra": ["note"]}) == {}
    finally:
        casino.operator.execute("set global sql_mode = default")
    assert casino.keys() == {"kept"}
    assert casino.refused() == {
        **{f"c{n}{m}": ("not a timestamp", "dt_finalized") for n in range(4) for m in range(2)},
        **{f"f{n}": ("not a timestamp", "transaction_date") for n in range(4)},
    }
    (row,) = casino.rows("select properties from crm.events where key = 'kept'")
    assert row["properties"]["note"] == "0000-00-00"


# Texts --------------------------------------------------------------------------------------------------------------

#: What has broken JSON, CSV, COPY, SQL, terminals or fonts somewhere.
HOSTILE: Final = (
    *(
        '{"a": 1}',
        '"',
        '","',
        "\\",
        '\\"',
        "\\u0000",
        "\\N",
        "\\.",
        "null",
        "'; drop table crm.players; --",
        "%s %(x)s",
        "\n\r\n\t",
    ),
    *(
        "".join(map(chr, range(1, 32))),
        "\x7f\x85\u2028\u2029\ufeff\ufffe\uffff",
        "🙂👩‍👩‍👧 漢字 ß",
        "\u202eelto",
        "\U0010f700",
        ":null,",
    ),
)


def test_any_text_arrives_as_it_is(casino: Casino) -> None:
    """Ids, extra columns and properties hold what the source holds, whatever it means to JSON, CSV or SQL."""
    casino.create("deposits", DEPOSITS)
    casino.create("user_profile", USERS)
    casino.users(*({"user_ext_id": text, "user_first_name": text} for text in HOSTILE))
    casino.deposits(
        *(
            {
                "transaction_id": text,
                "user_ext_id": text,
                "provider_name": text,
                "note": text,
                "transaction_date": LONG_AGO,
            }
            for text in HOSTILE
        )
    )
    casino.deposits(*({"transaction_id": f"bad {n}", "deposit_amount": text} for n, text in enumerate(HOSTILE)))
    assert casino.run(user_profile={}, deposits={"extra": ["note"]}) == {}
    told = {bytes_of(row["key"]).decode() for row in casino.rows("select key from crm.events")}
    assert told == set(HOSTILE)
    for row in casino.rows("select * from crm.events"):
        assert row["external_id"] == row["key"] == row["properties"]["note"] == row["properties"]["provider"]
    names = {bytes_of(row["first_name"]).decode() for row in casino.rows("select * from crm.players where not is_stub")}
    assert names == set(HOSTILE)
    raws = {
        bytes_of(row["raw"]["deposit_amount"]).decode()
        for row in casino.rows("select * from crm.quarantine where stream = 'deposits'")
    }
    assert raws == set(HOSTILE)


def test_ids_and_keys_too_long_cost_their_row(casino: Casino) -> None:
    """1,600 bytes fit neither an index nor an API; so much in an optional id costs that id alone."""
    casino.create("deposits", DEPOSITS)
    casino.create("user_profile", USERS)
    long = "ü" * 800
    casino.users(
        {"user_ext_id": "7", "core_affiliate_id": long, "core_account_status": "SELF_EXCLUDED"},
        {"user_ext_id": "8", "core_account_status": long},
        {"user_ext_id": long},
        {"user_ext_id": "9", "ext_brand_id": long},
    )
    casino.deposits(
        *({"transaction_id": f"{long[:n]}"} for n in (100, 250, 800)), {"transaction_id": "d1", "user_ext_id": long}
    )
    casino.deposits({"transaction_id": "d2", "ext_brand_id": long}, {"transaction_id": "good"})
    assert casino.run(user_profile={}, deposits={}) == {}
    assert casino.keys() == {"good", long[:100]}
    refused = [
        (row["row_key"][:80], row["reason"], row["field"])
        for row in casino.rows("select * from crm.quarantine where not kept")
    ]
    assert sorted(refused) == sorted(
        [
            (f"kaasino|{long}"[:80], "too long for an id", "user_ext_id"),
            (long[:80], "too long for an id", "ext_brand_id"),
            (long[:80], "too long for an id", "row key"),
            (long[:80], "too long for an id", "row key"),
            ("d1", "too long for an id", "user_ext_id"),
            ("d2", "too long for an id", "ext_brand_id"),
        ]
    )
    players = {row["external_id"]: row["status"] for row in casino.rows("select * from crm.players where not is_stub")}
    assert players == {"7": "self_excluded", "8": "banned"}
    assert ("kaasino|7", "too long for an id", "core_affiliate_id") in casino.lost()


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_far_too_much_text_costs_itself(casino: Casino) -> None:
    """12 MB in an optional column, or in many rows: the rows are events without it, and the quarantine shows its beginning."""
    casino.create("deposits", DEPOSITS)
    repeat = "repeat('long \"text\" ', {})".format
    columns = ", ".join(DEPOSITS)
    many = (
        "generate_series(1, 60) s(n)" if casino.operator.family == "postgresql" else "(select seq n from seq_1_to_60) s"
    )
    casino.operator.execute(
        f"insert into deposits_rows ({columns}) select '{LONG_AGO}', 'kaasino', '7', concat('d', n), '{LONG_AGO}', '1.00', "
        f"'EUR', {repeat('case n when 7 then 1000000 else 10000 end')}, case when n < 50 then {repeat(10000)} else 'fine' end from {many}"
    )
    assert casino.run(deposits={"extra": ["note"]}) == {}
    events = casino.rows("select * from crm.events")
    assert {row["key"] for row in events} == {f"d{n}" for n in range(1, 61)}
    assert [row["properties"].get("note") for row in events].count("fine") == 11
    assert max(len(str(row["properties"])) for row in events) < 1000
    assert {(reason, field) for _, reason, field in casino.lost()} == {("too long", "provider"), ("too long", "note")}
    (row,) = casino.rows("select * from crm.quarantine where row_key = 'd7' and field = 'provider'")
    assert row["raw"]["provider_name"].startswith('long "text" long')
    assert row["raw"]["provider_name"].endswith("... (12000000 bytes)")
