"""Binding a contract to a view that exists: names, aliases, keys, cursors, modes, and every problem said at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from connector import config
from connector.errors import Misconfigured
from connector.streams import STREAMS
from connector.streams.contract import Binding, bind

if TYPE_CHECKING:
    from collections.abc import Callable

#: (stream, mode) for every shape of every view.
SHAPES: Final = [
    (stream, mode) for stream, contract in STREAMS.items() for mode in (contract.modes or (None,)) if mode != "wins"
] + [("casino_wins", None)]
ALIASES: Final = [
    (stream, mode, column.name, alias, column.aliases[: column.aliases.index(alias)])
    for stream, mode in SHAPES
    for column in STREAMS[stream].columns_for(mode or next(iter(STREAMS[stream].modes), None))
    for alias in column.aliases
]


def full(stream: str, mode: str | None) -> list[str]:
    """Every column of the contract under its own name, and an id."""
    contract = STREAMS[stream]
    names = [column.name for column in contract.columns_for(mode or next(iter(contract.modes), None))]
    return list(dict.fromkeys(["id", *names]))


def refused(stream: str, columns: list[str], /, **settings: Any) -> str:
    with pytest.raises(Misconfigured) as caught:
        bind(STREAMS[stream], config.Stream(**settings), dict.fromkeys(columns, "text"), view="some_view")
    return str(caught.value)


@pytest.mark.parametrize(("stream", "mode"), SHAPES)
def test_a_view_with_the_contracts_own_names_binds(
    stream: str, mode: str | None, bound: Callable[..., Binding]
) -> None:
    """Every column finds itself; cursor and key come first in what a page reads, and nothing is read twice."""
    columns = full(stream, mode)
    binding = bound(stream, columns, mode=mode)
    assert all(binding.columns[name] == name for name in binding.columns)
    assert set(columns) - {"id"} == set(binding.columns)
    assert binding.selected[: 1 + len(binding.key)] == tuple(dict.fromkeys((binding.cursor, *binding.key)))[
        : 1 + len(binding.key)
    ] or (binding.key == (binding.cursor,))
    assert len(set(binding.selected)) == len(binding.selected)
    assert (binding.stream, binding.view) == (stream, stream)


@pytest.mark.parametrize(("stream", "mode", "name", "alias", "better"), ALIASES)
def test_an_alias_stands_for_its_column(
    stream: str, mode: str | None, name: str, alias: str, better: tuple[str, ...], bound: Callable[..., Binding]
) -> None:
    """A name from the field is found without any configuration, where no better one is there."""
    columns = [alias if column == name else column for column in full(stream, mode) if column not in {alias, *better}]
    assert bound(stream, columns, mode=mode).columns[name] == alias


@pytest.mark.parametrize(("stream", "mode"), SHAPES)
def test_column_names_match_in_any_case(stream: str, mode: str | None, bound: Callable[..., Binding]) -> None:
    """Oracle-style upper case binds, and the view's own spelling is what is read."""
    binding = bound(stream, [name.upper() for name in full(stream, mode)], mode=mode)
    assert all(name.isupper() for name in binding.selected)


def test_the_contracts_own_name_goes_before_an_alias(bound: Callable[..., Binding]) -> None:
    """A view with both `transaction_id` and `id` is read by the transaction id."""
    binding = bound("deposits", full("deposits", None))
    assert binding.columns["transaction_id"] == "transaction_id"
    assert binding.key == ("transaction_id",)


def test_a_rename_replaces_name_and_aliases(bound: Callable[..., Binding]) -> None:
    """columns: {contract: view} is followed in any case, even where an alias stands beside it."""
    columns = [*full("deposits", None), "Brutto"]
    assert bound("deposits", columns, columns={"deposit_amount": "bRUTTo"}).columns["deposit_amount"] == "Brutto"


def test_the_design_example_of_bets_binds(bound: Callable[..., Binding]) -> None:
    """The documented configuration of casino_bets works as written."""
    columns = [
        "id",
        "ext_brand_id",
        "user_ext_id",
        "type",
        "bet_date",
        "stake",
        "win_amount",
        "game_name",
        "game_id",
        "round_id",
    ]
    binding = bound(
        "casino_bets",
        columns,
        mode="single_table",
        cursor={"column": "id", "kind": "id"},
        key=["id"],
        columns={"bet_amount": "stake"},
        extra=["round_id"],
    )
    assert (binding.cursor, binding.kind, binding.key, binding.extra) == ("id", "id", ("id",), ("round_id",))
    assert binding.columns["bet_amount"] == "stake"


@pytest.mark.parametrize(("stream", "mode"), SHAPES)
def test_everything_that_is_missing_is_said_at_once(stream: str, mode: str | None) -> None:
    """One message names each required column, the cursor, the key, a wrong rename and a wrong extra column."""
    contract = STREAMS[stream]
    message = refused(stream, ["foo"], mode=mode, columns={"nonsense": "x"}, extra=["bar"])
    shape = mode or next(iter(contract.modes), None)
    required = [column.name for column in contract.columns_for(shape) if column.required]
    assert required
    for name in (*required, contract.cursor[0], "nonsense", "bar", "row key", "foo", "some_view"):
        assert name in message


def test_a_rename_to_a_column_that_is_not_there_is_an_error() -> None:
    """An optional column that the operator named must exist."""
    assert "'bonus'" in refused("deposits", full("deposits", None), columns={"bonus_code": "bonus"})


def test_a_view_without_a_key_is_refused_with_the_remedy() -> None:
    """Rows that can't be told apart are never read."""
    columns = [name for name in full("deposits", None) if name not in {"id", "transaction_id"}]
    message = refused("deposits", columns)
    assert "no usable row key" in message
    assert "key: [id]" in message


def test_a_configured_key_must_be_there_whole() -> None:
    """A key of two columns with one missing does not fall back to another key."""
    message = refused("deposits", full("deposits", None), key=["transaction_id", "leg"])
    assert "no usable row key" in message
    assert "leg" in message


@pytest.mark.parametrize(
    ("stream", "without", "key"),
    [
        ("withdrawals", {"id"}, ("transaction_id", "withdrawal_status")),
        ("withdrawals", {"withdrawal_status"}, ("id",)),
        ("withdrawals", {"id", "withdrawal_status"}, ("transaction_id",)),
        ("casino_bets", set(), ("id",)),
        ("user_profile", {"id"}, ("ext_brand_id", "user_ext_id")),
    ],
)
def test_the_first_key_that_exists_is_taken(
    stream: str, without: set[str], key: tuple[str, ...], bound: Callable[..., Binding]
) -> None:
    """Keys are tried in the contract's order."""
    assert bound(stream, [name for name in full(stream, None) if name not in without]).key == key


def test_bets_without_an_id_are_told_apart_by_bet_and_type(bound: Callable[..., Binding]) -> None:
    """A bet and its win may share the bet id."""
    columns = [name for name in full("casino_bets", "single_table") if name != "id"]
    assert bound("casino_bets", columns, cursor={"column": "bet_date", "kind": "time"}).key == ("bet_id", "type")


def test_a_cursor_that_is_not_there_names_the_setting() -> None:
    """The message says how to set the cursor."""
    message = refused("deposits", [name for name in full("deposits", None) if name != "dt_finalized"], cursor=None)
    assert "cursor: {column: ..., kind: time|id}" in message
    assert "'nowhere'" in refused("deposits", full("deposits", None), cursor={"column": "nowhere", "kind": "id"})


def test_a_cursor_may_be_named_by_contract_or_by_view(bound: Callable[..., Binding]) -> None:
    """`dt_finalized` renamed to `closed_at` is found under either name."""
    columns = ["closed_at" if name == "dt_finalized" else name for name in full("deposits", None)]
    for name in ("dt_finalized", "closed_at", "CLOSED_AT"):
        settings = {"columns": {"dt_finalized": "closed_at"}, "cursor": {"column": name, "kind": "time"}}
        assert bound("deposits", columns, **settings).cursor == "closed_at"


@pytest.mark.parametrize(
    ("stream", "mode"), [("deposits", "separate"), ("user_profile", "single_table"), ("casino_wins", "win_per_bet")]
)
def test_a_mode_that_a_stream_does_not_have_is_refused(stream: str, mode: str) -> None:
    """Modes belong to streams."""
    assert mode in refused(stream, full(stream, None), mode=mode)


def test_the_first_mode_is_the_default(bound: Callable[..., Binding]) -> None:
    """Without a mode bets are one table with a type."""
    assert bound("casino_bets", full("casino_bets", "single_table")).mode == "single_table"


def test_one_table_of_bets_needs_a_type() -> None:
    """Without `type` bets and wins of a single table can't be told apart."""
    assert "type" in refused("casino_bets", [name for name in full("casino_bets", "single_table") if name != "type"])


@pytest.mark.parametrize("extra", [["timezone"], ["vip", "vip"], ["VIP", "vip"]])
def test_an_extra_column_that_is_named_twice_costs_nothing(
    extra: list[str], normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """An extra column may repeat an optional column of the contract, or itself."""
    rows = [row("user_profile", timezone="Europe/Madrid", vip="1")]
    assert normalise("user_profile", rows, extra=extra).profiles.height == 1


# Cursors ------------------------------------------------------------------------------------------------------------

_BET: Final = ("id", "ext_brand_id", "user_ext_id", "type", "bet_date", "game_name", "game_id")


def bets(type_name: str, kind: str) -> Binding:
    """Bind casino_bets whose `id` is of this SQL type, read as a cursor of this kind."""
    cursor: Any = {"column": "id", "kind": kind}
    types = {**dict.fromkeys(_BET, "text"), "id": type_name}
    return bind(STREAMS["casino_bets"], config.Stream(cursor=cursor), types, view="casino_bets")


@pytest.mark.parametrize(
    "type_name",
    [
        *("text", "character varying(40)", "uuid", "bytea", "citext", "jsonb", "character(12)"),
        *("varchar(40) character set latin1 collate latin1_bin", "char(36)", "binary(16)", "varbinary(8)", "longtext"),
        *("enum('1','2')", "set('1','2')", "nvarchar(40)", "uniqueidentifier", "rowversion of binary(8)"),
    ],
)
def test_an_id_cursor_is_no_text(type_name: str) -> None:
    """'10' comes before '9' in a text, and a uuid in no order of time: rows would be passed by, so it is refused."""
    with pytest.raises(Misconfigured) as caught:
        bets(type_name, "id")
    assert f"it is {type_name}, and texts come as '10', '9'" in str(caught.value)
    assert "expose a number as id" in str(caught.value)


@pytest.mark.parametrize("type_name", ["timestamp with time zone", "datetime(6)", "date", "smalldatetime"])
def test_an_id_cursor_is_no_time(type_name: str) -> None:
    """The remedy is to say so."""
    with pytest.raises(Misconfigured, match="kind: time"):
        bets(type_name, "id")


@pytest.mark.parametrize(
    ("type_name", "kind"),
    [
        ("double precision", "id"),
        ("float", "time"),
        ("real", "id"),
        ("numeric(16,3)", "time"),
        ("decimal(16,6)", "time"),
    ],
)
def test_a_cursor_is_no_fraction(type_name: str, kind: str) -> None:
    """A float knows ids up to 2^53 only, and no part of a second is an epoch integer."""
    with pytest.raises(Misconfigured, match="cast it to a whole number"):
        bets(type_name, kind)


@pytest.mark.parametrize(
    ("type_name", "kind"),
    [
        *(("bigint", "id"), ("integer", "id"), ("bigint(20) unsigned", "id"), ("numeric(20)", "id"), ("numeric", "id")),
        *(("decimal(20,0)", "id"), ("numeric(38,10)", "id"), ("bet_id", "id"), ("int(8) unsigned zerofill", "id")),
        *(("bigint", "time"), ("numeric", "time"), ("datetime", "time"), ("timestamp(0) without time zone", "time")),
        *(("date", "time"), ("datetimeoffset(7)", "time"), ("moment", "time")),
    ],
)
def test_numbers_and_times_are_cursors(type_name: str, kind: str) -> None:
    """Whatever the server calls them; a domain's name says nothing of its type."""
    assert bets(type_name, kind).cursor == "id"
