"""Canonical events as rows of the ledger, as far as no store is needed for it: made ahead of THE transaction. Pure.

Left to the transaction is only what others may change until then: who the accounts are, the currency of those who have
told none, and rates that come with a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.event import ACCOUNT, EFFECT_CODES, NAMES
from connector.money import plain, valued
from connector.store import totals
from connector.words import Words

if TYPE_CHECKING:
    from connector.money import Rates
    from connector.normalised import Normalised

_NAMES: Final = {name: index for index, name in enumerate(NAMES, start=1)}


@dataclass(frozen=True)
class Draft:
    """Events in order, each with its `account`: its place in `accounts` (brand_id, external_id), which are distinct.

    `added` is what they all add to the totals (see totals.sums), by `account`. It is None, and nothing is valued, where
    that is not the configuration's to say: an event without a currency, or of one without a fixed rate.
    """

    accounts: pl.DataFrame
    rows: pl.DataFrame
    shape: tuple[str, ...] | None
    added: pl.DataFrame | None


def draft(brought: Normalised, rates: Rates) -> Draft | None:
    """Turn canonical events into rows: names and effects as numbers, money in both currencies, sums; None of none.

    Called by whoever reads a page, on a thread of its own, or by the transaction itself.
    """
    events, shape = brought.events, brought.shape
    if events.is_empty():
        return None
    accounts = events.select_seq(ACCOUNT).unique(maintain_order=True)
    placed = events.join(accounts.with_row_index("account"), on=ACCOUNT, how="left", maintain_order="left")
    rows = placed.with_columns_seq(
        *rates.words.each(events["currency"]).struct.unnest(),
        _NAME_IDS.each(events["name"]).alias("name_id"),
        _CODES.each(events["effect"]).fill_null(0) * events["sign"].fill_null(1),
        currency=pl.when(pl.col("amount").is_not_null()).then("currency"),
        transaction_id=pl.when(pl.col("transaction_id") != pl.col("key")).then(pl.col("transaction_id")),
        native=pl.col("amount"),
        native_stake=pl.col("stake"),
        amount=plain(pl.col("amount")),
        stake=plain(pl.col("stake")),
    )
    rows = rows.select_seq(pl.exclude(*ACCOUNT, "sign", "play"), pl.col("play").fill_null(value=False))
    unknown = pl.col("native").is_not_null() & pl.col("rate").is_null() & ~pl.col("play")
    if rows.select_seq(unknown.any()).item():
        return Draft(accounts, rows.drop("rate", "fx_rate_locked", "play"), shape, None)
    rows = valued(rows, rates)
    return Draft(accounts, rows, shape, totals.sums(rows, by="account"))


_NAME_IDS: Final = Words(lambda name: name.replace_strict(_NAMES, return_dtype=pl.Int16))
_CODES: Final = Words(lambda effect: effect.replace_strict(EFFECT_CODES, return_dtype=pl.Int16))
