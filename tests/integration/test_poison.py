"""Rows that are wrong, end to end on every dialect: each costs itself, says why in the quarantine, and the rest arrives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import pytest

from connector.sources.dialect import bytes_of

Casino = Any
LONG_AGO: Final = "2026-01-05 12:00:00"


@pytest.fixture
def casino(casino_of_texts: Casino) -> Casino:
    """Give an operator without views on every dialect, and an empty store."""
    return casino_of_texts


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


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_amounts_are_exact_or_refused(casino: Casino) -> None:
    """Exponents and signs of zero are numbers; what is none, or none that money can be, costs its row."""
    casino.create("deposits")
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
    casino.create("deposits", deposit_amount=type_name)
    values = {"tiny": "1e-7", "nan": "NaN", "more": "Infinity", "less": "-Infinity", "vast": "1e30", "zero": "-0"}
    casino.deposits(*({"transaction_id": key, "deposit_amount": value} for key, value in values.items()))
    assert casino.run(deposits={}) == {}
    amounts = {row["key"]: row["amount"] for row in casino.rows("select * from crm.events")}
    assert amounts == {"tiny": Decimal("0.0000001"), "zero": Decimal(0)}
    assert casino.refused() == dict.fromkeys(("nan", "more", "less", "vast"), _NOT_FINITE)


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_a_currency_that_no_index_holds_costs_its_row(casino: Casino) -> None:
    """It would stop the store's transaction; neither is it the player's own currency. Blanks are none at all."""
    casino.create("deposits")
    casino.create("user_profile")
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


@pytest.mark.parametrize(
    ("operator", "page_rows"), [("postgresql", 1), ("standby", 100), ("odbc", 2)], indirect=["operator"]
)
def test_times_beyond_the_calendar(casino: Casino, page_rows: int) -> None:
    """Before the year 1 or after 9999, in cursor or business time, a row is refused; what lies ahead is never a head."""
    casino.create("deposits", transaction_date="timestamptz")
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
@pytest.mark.parametrize(("page_rows", "mode"), [(1, "TRADITIONAL"), (3, "ALLOW_INVALID_DATES")])
def test_zero_dates_of_mysql(casino: Casino, page_rows: int, mode: str) -> None:
    """First, in the middle or last on a page: a stream goes on behind them, whatever the server's mode."""
    casino.operator.execute("set sql_mode = 'ALLOW_INVALID_DATES'")
    casino.create("deposits", transaction_date="datetime", note="date")
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


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_any_text_arrives_as_it_is(casino: Casino) -> None:
    """Ids, extra columns and properties hold what the source holds, whatever it means to JSON, CSV or SQL."""
    casino.create("deposits")
    casino.create("user_profile")
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


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_ids_and_keys_too_long_cost_their_row(casino: Casino) -> None:
    """1,600 bytes fit neither an index nor an API; so much in an optional id costs that id alone."""
    casino.create("deposits")
    casino.create("user_profile")
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
    casino.create("deposits")
    repeat = "repeat('long \"text\" ', {})".format
    many = (
        "generate_series(1, 60) s(n)" if casino.operator.family == "postgresql" else "(select seq n from seq_1_to_60) s"
    )
    casino.operator.execute(
        f"insert into deposits_rows select '{LONG_AGO}', 'kaasino', '7', concat('d', n), '{LONG_AGO}', '1.00', "
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


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
def test_bytes_that_are_no_text_arrive(casino: Casino) -> None:
    """Players and transactions whose ids differ in such bytes alone stay apart; an id of BINARY(n) is its hex."""
    casino.create("deposits", user_ext_id="varbinary(20)", transaction_id="binary(4)", note="varbinary(20)")
    raws = (b"a\xe9", b"a\xe8", b"a\0", b"a", b"\xff\xfe", "é".encode())
    casino.deposits(
        *({"transaction_id": b"\0\xff\x80" + bytes([n]), "user_ext_id": raw, "note": raw} for n, raw in enumerate(raws))
    )
    assert casino.run(deposits={"extra": ["note"]}) == {}
    events = casino.rows("select * from crm.events order by key")
    assert [row["key"] for row in events] == [f"00ff80{n:02x}" for n in range(len(raws))]
    assert [bytes_of(row["external_id"]) for row in events] == list(raws)
    assert [bytes_of(row["properties"]["note"]) for row in events] == list(raws)
    assert len(casino.rows("select * from crm.players")) == len(raws)


# Ids ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_ids_beyond_64_bits_are_ids(casino: Casino) -> None:
    """Page by page through negative ids and those above 2^63, each bet comes once and a second run finds nothing."""
    ids = (*((-1001, -9, -1) if casino.operator.family == "postgresql" else ()), 0, 9, 10, 2**63, 2**63 + 1, 2**64 - 1)
    kind = "numeric(20)" if casino.operator.family == "postgresql" else "bigint unsigned"
    casino.operator.execute(
        f"create table casino_bets (id {kind} primary key, ext_brand_id varchar(20), user_ext_id varchar(20), type varchar(9), "
        "bet_date varchar(30), bet_amount numeric(9,2), win_amount numeric(9,2), game_id varchar(9), game_name varchar(9), "
        "currency varchar(3))"
    )
    casino.operator.fill(
        "casino_bets", [(one, "kaasino", "7", "BET", LONG_AGO, 1, None, "g", "G", "EUR") for one in ids]
    )
    streams = {"casino_bets": {"start": "beginning"}, "source": {"page_rows": 1}}
    for _ in range(2):
        assert casino.run(**streams) == {}
        assert [row["key"] for row in casino.rows("select key from crm.events order by seq")] == [
            str(one) for one in ids
        ]
    (player,) = casino.rows("select total_wagered, bet_count from crm.players")
    assert player["bet_count"] == len(ids)
