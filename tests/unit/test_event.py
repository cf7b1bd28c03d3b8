"""Row keys, properties and event ids: what makes an event the same event again."""

from __future__ import annotations

import itertools
import json
import re
from typing import Final

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from connector.event import EFFECTS, NAMES, named, packed, properties, row_key, ulid

EXAMPLES: Final = settings(max_examples=80, deadline=None)
parts = st.text(alphabet='\\|"a1 ', max_size=5) | st.text(max_size=5)
#: A value that begins with this is broken today, see the test below the property.
BROKEN: Final = ":null,"
values = st.none() | (st.text() | st.text(alphabet='":nul,{}[]\\\n\t\x00\x1f\x7f\u2028', max_size=12)).filter(
    lambda text: not text.startswith(BROKEN)
)


def encoded(rows: list[dict[str, str | None]], names: list[str]) -> list[str]:
    return properties(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))).to_list()


@pytest.mark.parametrize(("width", "longest"), [(1, 4), (2, 3), (3, 2)])
def test_different_rows_never_share_a_key(width: int, longest: int) -> None:
    """Joining key columns is injective: all short texts of bars, backslashes and a letter, in every combination."""
    texts = ["".join(text) for size in range(longest + 1) for text in itertools.product("\\|a", repeat=size)]
    rows = list(itertools.product(texts, repeat=width))
    names = [f"c{index}" for index in range(width)]
    assert pl.DataFrame(rows, schema=names, orient="row").select(row_key(names)).to_series().n_unique() == len(rows)


@EXAMPLES
@given(st.lists(st.tuples(parts, parts), min_size=2, max_size=30, unique=True))
def test_keys_of_any_texts_differ(rows: list[tuple[str, str]]) -> None:
    """Whatever else a key holds, two rows have two keys."""
    assert pl.DataFrame(rows, schema=["a", "b"], orient="row").select(
        row_key(["a", "b"])
    ).to_series().n_unique() == len(rows)


def test_a_single_key_column_is_the_key_itself() -> None:
    """One column needs no escaping: quarantine and events show the id that the operator knows."""
    assert pl.DataFrame({"id": ["a|b\\", "007"]}).select(row_key(["id"])).to_series().to_list() == ["a|b\\", "007"]


@EXAMPLES
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(("first", "b", "last"), values)), min_size=1, max_size=20))
def test_properties_are_the_values_without_the_nulls(rows: list[dict[str, str | None]]) -> None:
    """Decoding a row's properties gives its columns back, quotes and control characters included."""
    expected = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert [json.loads(text) for text in encoded(rows, ["first", "b", "last"])] == expected


@EXAMPLES
@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(("first", "b", "last"), st.none() | values)), min_size=1, max_size=20)
)
def test_packed_values_are_the_same_properties(rows: list[dict[str, str | None]]) -> None:
    """Values under a shape name what whole objects name, wherever nulls stand and whatever the texts hold."""
    shape = ("first", "b", "last")
    stored = packed(pl.DataFrame(rows, schema=dict.fromkeys(shape, pl.String)))
    found = [named(shape, json.loads(whole or "null"), values) for whole, values in stored.iter_rows()]
    assert found == [json.loads(text) for text in encoded(rows, [*shape])]


def test_packed_values_end_with_the_last_that_there_is() -> None:
    """Nulls at the end take no room, and what nothing is said of has no values."""
    rows = pl.DataFrame({"a": ["1", "2", None], "b": [None, "x", None]}).with_columns(c=pl.lit(None, dtype=pl.String))
    assert packed(rows).to_dicts() == [{"properties": None, "packed": text} for text in ("1", "2\x1fx", "")]


@pytest.mark.parametrize("text", ["", "\x1f", "a\x1fb", "x\x1f"])
def test_a_value_that_cannot_stand_among_others_stands_in_an_object(text: str) -> None:
    """An empty text is not nothing, and a separator in a text separates nothing; the rows beside it stay as they are."""
    rows = packed(pl.DataFrame({"a": ["1", text], "b": [None, "2"]}))
    assert [values for _, values in rows.iter_rows()] == ["1", None]
    assert json.loads(rows["properties"][1]) == {"a": text, "b": "2"}


@pytest.mark.parametrize("text", [":null,", ":null,x", ':null,"'])
def test_a_value_that_looks_like_a_null_stays_a_value(text: str) -> None:
    """No text that a player or an operator can write breaks the JSON of a row."""
    assert [json.loads(found) for found in encoded([{"a": text, "b": "1"}], ["a", "b"])] == [{"a": text, "b": "1"}]


def test_no_properties_are_an_empty_object() -> None:
    """An event without properties carries {}."""
    assert encoded([{"a": None}], ["a"]) == ["{}"]


def test_the_ulid_is_the_documented_formula() -> None:
    """48 bits of milliseconds and 80 bits of SHA-256 in Crockford's base 32, by the published vector."""
    assert ulid(1767225600000, ("casino1|deposit|987654",)) == "01KDVDNA00RDWPKPGF5Y6A5GTE"


@EXAMPLES
@given(st.integers(-(2**40), 2**47), st.tuples(*[st.text(alphabet="abc|1", max_size=6)] * 7), st.integers(0, 6))
def test_a_ulid_is_stable_and_every_part_of_the_identity_counts(
    milliseconds: int, identity: tuple[str, ...], part: int
) -> None:
    """26 characters, the first 0 to 7, the same for the same event and another for any other."""
    other = (*identity[:part], identity[part] + "x", *identity[part + 1 :])
    first = ulid(milliseconds, identity)
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", first)
    assert ulid(milliseconds, identity) == first
    assert ulid(milliseconds, other) != first
    assert ulid(max(milliseconds, 0) + 1, identity) != first


def test_the_parts_of_an_identity_do_not_run_together() -> None:
    """What one part ends with is not what the next begins with."""
    assert ulid(0, ("ab", "c")) != ulid(0, ("a", "bc")) != ulid(0, ("abc",))


def test_ulids_sort_by_business_time() -> None:
    """The time part leads, so that ids of later events are greater."""
    ids = [ulid(moment, (str(moment),)) for moment in (0, 1, 1_700_000_000_000, 2**47)]
    assert ids == sorted(ids)


def test_names_are_stored_by_number_and_never_repeat() -> None:
    """An event name stands once in the list, and the four totals and sessions are the only effects."""
    assert len(set(NAMES)) == len(NAMES)
    assert EFFECTS == ("deposited", "withdrawn", "wagered", "won", "session")
