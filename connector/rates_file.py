"""The CSV of rates that an operator keeps: read whole at every start, every mistake said at once with its line."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.errors import Misconfigured
from connector.normalised import RATES
from connector.streams import amounts
from connector.streams.instants import instants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_REQUIRED: Final = ("currency", "valid_from", "rate")
_COLUMNS: Final = (*_REQUIRED, "base")
_MOST_SHOWN: Final = 20
_REMEDY: Final = "the file must begin with: currency,valid_from,rate or currency,valid_from,rate,base"


def read(path: Path) -> pl.DataFrame:
    """Return the rates of a file as normalised.RATES. Raises Misconfigured with every mistake, one line each."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(_rows(csv.reader(lines), path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV in UTF-8"
        raise Misconfigured(f"fx.file: can't read {path}: {reason}", hint=_REMEDY) from None
    schema = {"line": pl.Int64, **dict.fromkeys(_COLUMNS, pl.String)}
    texts = pl.DataFrame(rows, schema=schema, orient="row")
    typed = texts.select_seq(
        "line",
        currency=amounts.currency(pl.col("currency")),
        valid_from=instants(texts["valid_from"]),
        rate=amounts.amount(amounts.present(pl.col("rate"))),
        base=amounts.currency(amounts.present(pl.col("base"))),
        other=amounts.present(pl.col("base")).is_not_null(),
    )
    if mistakes := sorted(_mistakes(typed)):
        shown = [f"  line {line}: {text}" for line, text in mistakes[:_MOST_SHOWN]]
        more = len(mistakes) - len(shown)
        told = "\n".join([*shown, *([f"  and {more} more"] if more else [])])
        raise Misconfigured(f"fx.file: {path} has {len(mistakes)} mistake(s):\n{told}")
    return typed.select_seq(pl.col(name).cast(dtype) for name, dtype in RATES.items())


def _rows(
    lines: Iterator[list[str]], path: Path
) -> Iterator[tuple[int, str | None, str | None, str | None, str | None]]:
    """Yield line number and texts; a line that is too short has nulls at its end, and an empty one is no line."""
    header = [name.strip().lower() for name in next(lines, [])]
    if missing := [name for name in _REQUIRED if name not in header]:
        raise Misconfigured(f"fx.file: {path} has no column {' and no '.join(missing)}", hint=_REMEDY)
    places = [header.index(name) if name in header else len(header) for name in _COLUMNS]
    for number, row in enumerate(lines, start=2):
        if any(row):
            padded = [*row, *([None] * (len(header) + 1))]
            yield (number, *(padded[place] if place < len(row) else None for place in places))  # type: ignore[misc]


def _mistakes(typed: pl.DataFrame) -> Iterator[tuple[int, str]]:
    judged = {
        "no currency": pl.col("currency").is_null(),
        "valid_from is no time, such as 2026-01-31 or 2026-01-31T12:00:00Z": pl.col("valid_from").is_null(),
        "rate is not a number above zero": (pl.col("rate") > 0).fill_null(value=False).not_(),
        "base is not a currency": pl.col("other") & pl.col("base").is_null(),
    }
    for text, bad in judged.items():
        yield from ((line, text) for line in typed.filter(bad)["line"])
    key = ["base", "currency", "valid_from"]
    again = typed.filter(pl.col("currency").is_not_null() & pl.col("valid_from").is_not_null()).with_columns_seq(
        first=pl.col("line").min().over(key), at_first=pl.col("rate").sort_by("line").first().over(key)
    )
    differing = again.filter((pl.col("line") != pl.col("first")) & (pl.col("rate") != pl.col("at_first")))
    for line, first in differing.select_seq("line", "first").iter_rows():
        yield line, f"another rate than line {first} gives for the same currency and time"
