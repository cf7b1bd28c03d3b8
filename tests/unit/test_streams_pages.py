"""Whatever a page holds, every row is an event or refused, and not a cent is lost on the way."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector.event import EVENTS, REJECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES: Final = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Row = dict[str, str | None]

good_amounts = st.decimals(0, 10**13, places=18).filter(lambda value: value < 10**13) | st.decimals(0, 500, places=2)
written = good_amounts.flatmap(
    lambda value: st.sampled_from(
        [f"{value:f}", f" {value:f} ", f"{value:f}".rstrip("0").rstrip(".") or "0", f"+{value:f}"]
    )
)
bad_amounts = st.sampled_from(
    [None, "", "NaN", "Infinity", "-0.01", "-12", "10000000000000", "1" * 25, "1,5", "twelve", "0x1F"]
)
bad_times = st.sampled_from([None, "", "soon", "2026-02-30 00:00:00", "infinity"])
missing = st.sampled_from([None, ""])
texts = st.none() | st.text(max_size=8).filter(lambda text: not text.startswith(":null,"))

#: Stream, mode, the column of the amount, columns left out, and the bad values of required columns.
SHAPES: Final = {
    "deposits": ("deposits", None, "deposit_amount", (), "transaction_date"),
    "withdrawals": ("withdrawals", None, "withdrawal_amount", (), "transaction_date"),
    "bets": ("casino_bets", "single_table", "bet_amount", (), "bet_date"),
    "separate": ("casino_bets", "separate", "bet_amount", ("type", "win_amount"), "bet_date"),
    "wins": ("casino_wins", None, "win_amount", (), "bet_date"),
    "sport_bet_open": ("sport_bet_open", None, "bet_amount", (), "bet_date"),
    "sport_bet_settled": ("sport_bet_settled", None, "win_amount", (), "settlement_date"),
}


@st.composite
def changes(draw: st.DrawFn, amount: str, time: str) -> tuple[Row, bool]:
    """Changed columns of one row, and whether the row is good."""
    fault = draw(st.sampled_from([None, None, None, "amount", "user", "time"]))
    changed: Row = {
        "user_ext_id": draw(missing if fault == "user" else st.sampled_from(["1", "007", "ü|\\", '"q"'])),
        amount: draw(bad_amounts if fault == "amount" else written),
        "provider_name" if amount.startswith(("deposit", "withdrawal")) else "game_provider": draw(texts),
        "round_id" if amount in {"bet_amount", "win_amount"} else "bonus_balance": draw(
            st.sampled_from([None, "3", "x y"])
        ),
    }
    if fault == "time":
        changed[time] = draw(bad_times)
    return changed, fault is None


@pytest.mark.parametrize("shape", list(SHAPES))
@EXAMPLES
@given(data=st.data())
def test_every_row_is_an_event_or_refused_and_sums_are_exact(
    shape: str, data: st.DataObject, normalise: Callable[..., Any], row: Any
) -> None:
    """Events and refusals add up to the rows read; the sum of event amounts is Decimal's; refusals keep the raw rows."""
    stream, mode, amount, without, time = SHAPES[shape]
    key = "id" if stream.startswith(("casino", "sport")) else "transaction_id"
    page = data.draw(st.lists(changes(amount, time), min_size=1, max_size=25))
    rows = [row(stream, without=without, **changed, **{key: f"{index + 1}"}) for index, (changed, _) in enumerate(page)]
    found = normalise(stream, rows, mode=mode)
    refused = found.rejections.filter(~pl.col("kept"))
    good = [one for one, (_, fine) in zip(rows, page, strict=True) if fine]
    assert (dict(found.events.schema), dict(found.rejections.schema)) == (dict(EVENTS), dict(REJECTIONS))
    assert found.events.height + refused.height == len(rows)
    assert [text.partition("|")[0] for text in found.events["key"]] == [one[key] for one in good]
    assert sum(found.events["amount"], Decimal(0)) == sum(
        (Decimal(str(one[amount]).strip()) for one in good), Decimal(0)
    )
    assert [json.loads(raw) for raw in refused["raw"]] == [
        one for one, (_, fine) in zip(rows, page, strict=True) if not fine
    ]
    assert refused.select(pl.col("reason", "field").is_null().any()).row(0) == (False, False)


@EXAMPLES
@given(
    st.lists(
        st.tuples(st.sampled_from(["1", "2", None, ""]), texts, texts, st.sampled_from(["ACTIVE", "frozen", None])),
        min_size=1,
        max_size=25,
    )
)
def test_every_user_is_a_profile_or_refused(
    normalise: Callable[..., Any], row: Any, users: list[tuple[str | None, ...]]
) -> None:
    """A user row with identity and status is always a profile, whatever else it holds."""
    rows = [
        row("user_profile", user_ext_id=user, user_phone=phone, user_birthdate=born, core_account_status=status)
        for user, phone, born, status in users
    ]
    found = normalise("user_profile", rows)
    good = [user for user, _, _, status in users if user and status is not None]
    assert found.profiles["external_id"].to_list() == good
    assert found.profiles.height + found.rejections.filter(~pl.col("kept")).height == len(rows)
