"""Any text in any column of any stream: nothing raises, and each row is an event, a profile, or refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector.money import plain
from connector.streams import STREAMS, values
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.normalised import Normalised
    from connector.streams.contract import Binding

Row = dict[str, str | None]
EXAMPLES: Final = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
#: (stream, mode, key columns) of every shape.
SHAPES: Final = {
    "user_profile": ("user_profile", None, ("ext_brand_id", "user_ext_id")),
    "deposits": ("deposits", None, ("transaction_id",)),
    "withdrawals": ("withdrawals", None, ("transaction_id", "withdrawal_status")),
    "single_table": ("casino_bets", "single_table", ("id",)),
    "separate": ("casino_bets", "separate", ("id",)),
    "win_per_bet": ("casino_bets", "win_per_bet", ("id",)),
    "wins": ("casino_wins", None, ("id",)),
    "sport_bet_open": ("sport_bet_open", None, ("id",)),
    "sport_bet_selection_open": ("sport_bet_selection_open", None, ("id",)),
    "sport_bet_settled": ("sport_bet_settled", None, ("id",)),
    "sport_bet_selection_settled": ("sport_bet_selection_settled", None, ("id",)),
    "failed_deposits": ("failed_deposits", None, ("transaction_id", "status")),
    "bonuses": ("bonuses", None, ("id",)),
}
EXTRAS: Final = ("note", 'odd "name"', "ctl\x01")
#: Texts that have broken parsers, numbers, calendars, JSON and CSV somewhere; NUL never reaches a page.
ODD: Final = (
    *("", " ", "NaN", "-Infinity", "inf", "1e-7", "1E+30", "1e999999999", "-0", ".5", "5.", "+.5e1", "0x1F", "1_000"),
    *("٣", "1,5", "9" * 5000, "0." + "0" * 400 + "1", "-" + "9" * 38, "99999999999999999999.999999999999999999"),
    *("0000-00-00", "0000-00-00 00:00:00", "0000-11-30", "9999-12-31 23:59:59.999999", "10000-01-01", "infinity"),
    *("-infinity", "0044-03-15 BC", "2026-02-30", "2026-01-01 24:00:00", "2026-01-01 00:00:60", "-0001-01-01"),
    *("2026-01-01 00:00:00+99:99", "+262143-12-31 00:00:00", "2026-01-01T00:00:00.123456789012Z", "-9" * 9),
    *("9223372036854775807", "-9223372036854775808", "99999999999999999", "253402300799999", "true", "tRuE", "t"),
    *('{"a":', "[" * 3000, '["\\ud800"]', '["\\u0000"]', "[1e999, NaN]", "[1" + "0" * 5000 + "]", '{a,"b', '"', "\\"),
    *(":null,", "null", "\x01", "\r\n", "\u2028", "\ufeff", "\ufffe", "🙂", "\U0010f7e9", "\u202e"),
    *(
        "+491701234567",
        "0170",
        "+" * 300,
        "ACTIVE ",
        "self_excluded",
        "BET",
        "win",
        "void ",
        "CashOut",
        "EUR ",
        "e" * 200,
        "é" * 30_000,
    ),
)
texts = (
    st.none()
    | st.sampled_from(ODD)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
)


def columns_of(stream: str, mode: str | None) -> list[str]:
    """Return every column of a shape that is no part of its key."""
    contract = STREAMS[stream]
    return [column.name for column in contract.columns_for(mode or next(iter(contract.modes), None))]


def _assert_audited(binding: Binding, rows: list[Row], found: Normalised) -> None:
    page = pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))
    identified = values.identified(page.select(values.identifying(binding)), binding)
    events = found.events.with_columns(plain(pl.col("amount")))
    same = ["brand_id", "key", "mark", "amount"]
    assert events.join(identified, on=same, how="anti", nulls_equal=True).is_empty()


@pytest.mark.parametrize("shape", list(SHAPES))
@EXAMPLES
@given(data=st.data())
def test_any_text_in_any_column_costs_its_row_at_most(
    shape: str, data: st.DataObject, normalise: Callable[..., Any], bound: Callable[..., Binding], row: Any
) -> None:
    """Each row is exactly one event, one profile or one refusal (deposits that are not final yet: nothing).

    An audit finds each event's brand, key, mark and amount in its row again.
    """
    stream, mode, key = SHAPES[shape]
    free = [*(name for name in columns_of(stream, mode) if name not in key), *EXTRAS]
    pages = st.lists(st.dictionaries(st.sampled_from(free), texts, max_size=6), min_size=1, max_size=25)
    rows: list[Row] = []
    for number, changed in enumerate(data.draw(pages)):
        whole = {
            **dict.fromkeys((*free, *key)),
            **row(stream),
            **changed,
            key[-1 if stream == "user_profile" else 0]: f"{number}",
        }
        rows.append(whole)

    found = normalise(stream, rows, mode=mode, extra=list(EXTRAS))

    refused = found.rejections.filter(~pl.col("kept"))
    unsettled = ("PENDING", "PROCESSING", "INITIATED", "NEW", "REQUESTED", "WAITING", "FAILED", "CANCELLED")
    left_out = (
        [one for one in rows if (one.get("deposit_status") or "").strip().upper() in unsettled]
        if stream == "deposits"
        else []
    )
    done = [*found.events["key"], *found.profiles["external_id"]]
    assert len(done) == len(set(done))
    assert len(done) + refused.height + len(left_out) == len(rows)
    _assert_audited(bound(stream, list(rows[0]), mode=mode, extra=list(EXTRAS)), rows, found)
    said = told(found) + [json.loads(text) for text in (*found.profiles["traits"], *found.rejections["raw"])]
    assert not any("\0" in str(value) for one in said for value in one.values())
    for column in ("tags", "groups"):
        assert all(text is None or isinstance(json.loads(text), list) for text in found.profiles[column])
    assert found.rejections.select(pl.col("reason", "field", "raw").is_null().any()).row(0) == (False, False, False)
