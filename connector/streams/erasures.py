"""`erasures`: one row a person who asked to be erased -> erasures. A row stays what it is: nobody is brought back."""

from __future__ import annotations

from typing import Final

import polars as pl

from connector.normalised import ERASURES, Normalised
from connector.streams import values
from connector.streams.contract import IDENTITY, Binding, Column, Context, Contract


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. Whatever the mode, and however it is written, the person is erased."""
    del context  # an erasure of long ago holds as one of today
    typed = values.typed(page, binding)
    good, rejections = values.split(page, typed, binding.contract.columns, [])
    mode = pl.col("mode") if "mode" in good.columns else pl.lit(None)
    asked = good.select_seq(
        brand_id="ext_brand_id",
        external_id="user_ext_id",
        mode=mode.str.to_lowercase().fill_null("delete"),
        requested_at="dt_update",
    )
    erasures = asked.select_seq(pl.col(name).cast(dtype) for name, dtype in ERASURES.items())
    return Normalised(erasures=erasures, rejections=rejections)


CONTRACT: Final = Contract(
    stream="erasures",
    columns=(
        Column("dt_update", "time", required=True, aliases=("dt", "requested_at")),
        *IDENTITY,
        Column("mode"),
    ),
    cursor=("dt_update", "time"),
    keys=(("ext_brand_id", "user_ext_id"), ("id",)),
    business_time="dt_update",
    normalise=normalise,
    brings="facts",
)
