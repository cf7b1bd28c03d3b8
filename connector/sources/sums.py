"""Number, amounts and key digests of a stretch of a view, in one aggregate that an index range serves."""

from __future__ import annotations

import re
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.buckets import AmountColumn
    from connector.sources.dialect import Dialect

#: What the aggregate answers, as types that every dialect reads.
TYPES: Final = {"n": "bigint", "amount": "numeric", "digest": "numeric"}
#: Numbers whose sum is exact; those of other types are compared row by row.
_EXACT: Final = re.compile(r"^((small|big|tiny|medium)?int|integer|numeric|decimal)", re.IGNORECASE)


def columns(
    dialect: Dialect,
    table: sa.TableClause,
    key: Sequence[str],
    amounts: Sequence[AmountColumn],
    types: Mapping[str, str],
) -> list[sa.ColumnElement[Any]]:
    """Return the columns of the aggregate: rows, amount and digest; null for what can't be told.

    Rows of a view without amounts are worth nothing, as their events are.
    """
    digest = dialect.digest(_key(dialect, table, key, types)) if key else None
    exact = all(_EXACT.match(types[name]) for item in amounts for name in item.columns)
    amount: sa.ColumnElement[Any] = sa.literal_column("0") if exact else sa.null()
    if exact and amounts:
        amount = sa.func.coalesce(sa.func.sum(_amount(dialect, table, amounts, types)), 0)
    return [
        sa.func.count().label("n"),
        sa.type_coerce(amount, sa.Numeric()).label("amount"),
        sa.type_coerce(sa.null() if digest is None else sa.func.sum(digest), sa.Numeric()).label("digest"),
    ]


def _key(
    dialect: Dialect, table: sa.TableClause, key: Sequence[str], types: Mapping[str, str]
) -> sa.ColumnElement[Any]:
    """The text of connector.event.row_key."""
    texts = [dialect.as_text(table.c[name], types[name]) for name in key]
    if len(texts) == 1:
        return texts[0]
    escaped = [
        sa.func.replace(
            sa.func.replace(text, _constant("\\"), _constant("\\\\")), _constant("|"), _constant("\\|"), type_=sa.Text()
        )
        for text in texts
    ]
    return reduce(lambda left, right: sa.func.concat(left, _constant("|"), right), escaped)


def _amount(
    dialect: Dialect, table: sa.TableClause, amounts: Sequence[AmountColumn], types: Mapping[str, str]
) -> sa.ColumnElement[Any]:
    (first, *_) = amounts
    if first.type_column is None:
        return _value(table, first)
    said = sa.func.upper(sa.func.trim(dialect.as_text(table.c[first.type_column], types[first.type_column])))
    return sa.case(
        *((sa.or_(*(said == _constant(text) for text in item.types)), _value(table, item)) for item in amounts)
    )


def _value(table: sa.TableClause, item: AmountColumn) -> sa.ColumnElement[Any]:
    columns = [table.c[name] for name in item.columns]
    return columns[0] if len(columns) == 1 else sa.func.coalesce(*columns)


def _constant(text: str) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(text, sa.String()), sa.String(400))
