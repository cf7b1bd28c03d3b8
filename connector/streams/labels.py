"""`user_tags`, `user_groups`: one row a label of a user by `dt_update` -> labels; players' tags and groups."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.normalised import LABELS, Normalised
from connector.streams import values
from connector.streams.contract import IDENTITY, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.streams.contract import Normalise


def normalise(page: pl.DataFrame, binding: Binding, _context: Context, *, kind: str) -> Normalised:
    """See streams.contract.Normalise. A flag that can't be read costs the row: it may be about an exclusion."""
    typed = values.typed(page, binding)
    columns = binding.contract.columns_for(binding.mode)
    good, rejections = values.split(page, typed, columns, values.unreadable("is_deleted", typed, binding))
    labels = good.select_seq(
        brand_id="ext_brand_id",
        external_id="user_ext_id",
        kind=pl.lit(kind),
        label=pl.col(kind),
        present=~pl.col("is_deleted").fill_null(value=False),
        updated_at="dt_update",
    )
    typed_labels = labels.select_seq(pl.col(name).cast(dtype) for name, dtype in LABELS.items())
    return Normalised(labels=typed_labels, rejections=rejections)


def _of(kind: str) -> Normalise:
    return partial(normalise, kind=kind)


def _contract(stream: str, kind: str, *aliases: str) -> Contract:
    return Contract(
        stream=stream,
        columns=(
            Column("dt_update", "time", required=True),
            *IDENTITY,
            Column(kind, "id", required=True, aliases=aliases),
            Column("is_deleted", "flag", aliases=("removed", "is_removed")),
        ),
        cursor=("dt_update", "time"),
        keys=(("ext_brand_id", "user_ext_id", kind),),
        business_time="dt_update",
        normalise=_of(kind),
        brings="facts",
    )


TAGS: Final = _contract("user_tags", "tag", "tag_name", "name")
GROUPS: Final = _contract("user_groups", "group", "group_name", "group_code", "code", "name")
