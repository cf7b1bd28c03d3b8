"""Text to typed values: one expression per kind of column, and the rows that don't fit.

A page arrives as the source's own texts, so nothing has passed through a float or a driver's idea of time. Owns
parsing and rejection; what a value means is the stream's business.
"""

from __future__ import annotations

import csv
import hashlib
import json
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.event import AMOUNT, INSTANT, REJECTIONS, row_key
from connector.money import plain
from connector.streams import amounts as amounting
from connector.streams.amounts import present
from connector.streams.instants import instants
from connector.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from connector.streams.contract import Binding, Column, Context

_TRUE: Final = ("true", "t", "1", "yes", "y")
_FALSE: Final = ("false", "f", "0", "no", "n")
_INVALID: Final = {
    "time": "not a timestamp",
    "amount": "not a finite number of at most 20 digits",
    "currency": "not a currency",
    "number": "not a finite number of at most 20 digits",
    "count": "not a whole number of at most 18 digits",
    "flag": "not a boolean",
    "enum": "not a known value",
    "list": "not a list",
    "phone": "not a phone number",
}
#: Longer ids and codes fit neither an API nor an index, longer texts no API's item.
ID_BYTES: Final = 128
KEY_BYTES: Final = 400
TEXT_BYTES: Final = 32_768
_TOO_LONG: Final = "too long for an id"
#: How much of a longer text the quarantine shows.
_SHOWN_CHARACTERS: Final = 1000
#: Columns of every other kind stay texts.
_DTYPES: Final[Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "time": INSTANT,
    "amount": AMOUNT,
    "number": AMOUNT,
    "count": pl.Int64,
    "flag": pl.Boolean,
}
_CODE: Final = amounting.currency(pl.col("currency"))
_GREATEST: Final = 2**63 - 1


def typed(page: pl.DataFrame, binding: Binding) -> pl.DataFrame:
    """Return the page's contract columns, typed, and `row_key`, `row`, `mark`, of a time cursor also `at`.

    Beside them `bad:NAME`, if a text did not parse, `long:NAME`, if one is too long to be looked at, `part:NAME`,
    where an amount in subunits is not whole, and `scaleless`, where a row has amounts and nobody knows in what units.
    """
    columns = [column for column in binding.contract.columns_for(binding.mode) if column.name in binding.columns]
    texts = _texts(page, binding, columns)
    values = pl.DataFrame([_value(texts, column, binding) for column in columns])
    told = [values, texts.select_seq(name for name in texts.columns if name.startswith("long:"))]
    told.append(texts.select_seq(_bad(texts, values, column) for column in columns if _unread(texts, values, column)))
    absent = [column for column in binding.contract.columns_for(binding.mode) if column.name not in binding.columns]
    beside = [
        *(pl.lit(None, dtype=_dtype(column)).alias(column.name) for column in absent),
        *_extras(binding),
        _key(binding).alias("row_key"),
    ]
    if binding.scales:
        names = [column.name for column in columns if column.kind == "amount"]
        parts = (amounting.in_parts(pl.col(name), _CODE, binding.scales).alias(f"part:{name}") for name in names)
        told.append(texts.select_seq(parts))
        beside.append(amounting.scaleless(binding).alias("scaleless"))
    told.append(page.select_seq(beside))
    frame = pl.concat([part for part in told if part.width], how="horizontal").with_row_index("row")
    if binding.kind == "id":
        return frame.with_columns_seq(mark(page, binding))
    same = next((name for name, view in binding.columns.items() if view == binding.cursor), None)
    at = frame[same] if same is not None and frame[same].dtype == INSTANT else instants(page[binding.cursor])
    return frame.with_columns_seq(at.alias("at")).with_columns_seq(_nanoseconds("at").alias("mark"))


def _texts(page: pl.DataFrame, binding: Binding, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the columns that are there as texts, empty ones absent, and `long:NAME` of those where one is too long.

    That one is null then. Columns, not expressions: what is parsed in several ways is looked at once.
    """
    texts = page.select_seq(pl.col(binding.columns[column.name]).alias(column.name) for column in columns)
    limits = {column.name: ID_BYTES if column.kind == "id" else TEXT_BYTES for column in columns}
    sizes = texts.select_seq(pl.all().str.len_bytes())
    least, most = (sizes.select_seq(end).row(0, named=True) for end in (pl.all().min(), pl.all().max()))
    empty = [name for name in limits if least[name] == 0]
    long = [name for name, limit in limits.items() if (most[name] or 0) > limit]
    if not (empty or long):  # as nearly always
        return texts
    texts = texts.with_columns_seq(present(pl.col(name)) for name in empty)
    return texts.with_columns_seq(
        *((sizes[name] > limits[name]).fill_null(value=False).alias(f"long:{name}") for name in long),
        *(pl.when(sizes[name] <= limits[name]).then(pl.col(name)).alias(name) for name in long),
    )


def _value(texts: pl.DataFrame, column: Column, binding: Binding) -> pl.Series:
    if column.kind == "amount" and binding.scales:
        scaled = amounting.scaled(pl.col(column.name), _CODE, binding.scales)
        return texts.select_seq(scaled.alias(column.name)).to_series()
    return parse(texts[column.name], column, binding.values.get(column.name, {}))


def _unread(texts: pl.DataFrame, values: pl.DataFrame, column: Column) -> bool:
    """Return whether a column may have a text that did not parse, or is too long to be tried: mostly none has."""
    name = column.name
    fewer = values[name].null_count() > texts[name].null_count()
    return column.kind not in {"text", "id"} and (fewer or f"long:{name}" in texts.columns)


def _bad(texts: pl.DataFrame, values: pl.DataFrame, column: Column) -> pl.Expr:
    """Return whether there is a text that did not parse, or is too long to be tried."""
    name = column.name
    unread = present(pl.col(name).str.strip_chars()).is_not_null() & pl.lit(values[name]).is_null()
    return (unread | pl.col(f"long:{name}") if f"long:{name}" in texts.columns else unread).alias(f"bad:{name}")


def _key(binding: Binding) -> pl.Expr:
    keyless = pl.any_horizontal(pl.col(name).is_null() | (pl.col(name) == "") for name in binding.key)
    return pl.when(~keyless).then(row_key(list(binding.key)))


def _extras(binding: Binding) -> list[pl.Expr]:
    """The view's own columns beside the contract's, as texts."""
    long = [(name, pl.col(name).str.len_bytes() > TEXT_BYTES) for name in binding.extra]
    return [
        *(pl.when(bad.not_()).then(pl.col(name)).alias(f"extra:{name}") for name, bad in long),
        *(bad.fill_null(value=False).alias(f"long:extra:{name}") for name, bad in long),
    ]


def parse(texts: pl.Series, column: Column, mapped: Mapping[str, str]) -> pl.Series:
    """Return the typed values of texts, null where one does not parse; `mapped` is the operator's own value map."""
    parsers = {"time": instants, "amount": amounting.amounts, "number": amounting.amounts, "list": json_lists}
    if column.kind in parsers:
        return parsers[column.kind](texts)
    if column.kind == "count":
        return texts.to_frame("text").select_seq(amounting.count(pl.col("text")).alias(texts.name)).to_series()
    if column.kind == "enum":
        return _members(tuple(column.values.items()), tuple(mapped.items())).each(texts)
    words = {"currency": _CURRENCIES, "flag": _FLAGS}
    return words[column.kind].each(texts) if column.kind in words else texts


@lru_cache
def _members(values: tuple[tuple[str, str], ...], mapped: tuple[tuple[str, str], ...]) -> Words:
    return Words(partial(_member, values=dict(values), mapped=dict(mapped)))


def _member(word: pl.Expr, *, values: Mapping[str, str], mapped: Mapping[str, str]) -> pl.Expr:
    upper = word.str.strip_chars().str.to_uppercase()
    own = {name.upper(): value.upper() for name, value in mapped.items()}
    upper = upper.replace(own) if own else upper
    return upper.replace_strict(values, default=None, return_dtype=pl.String) if values else upper


def flag(text: pl.Expr) -> pl.Expr:
    """Parse a boolean in the spellings that databases and people use."""
    lower = text.str.strip_chars().str.to_lowercase()
    return pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False)


_FLAGS: Final = Words(flag)
_CURRENCIES: Final = Words(amounting.currency)


def json_lists(texts: pl.Series) -> pl.Series:
    """Parse lists written as JSON, as PostgreSQL arrays or comma-separated; give them back as JSON arrays of texts."""
    return texts.map_elements(_list_text, return_dtype=pl.String, skip_nulls=True)


def _list_text(text: str) -> str | None:
    try:
        items = _items(text.strip())
    except (ValueError, csv.Error, RecursionError):
        return None
    written = json.dumps(items, ensure_ascii=False, separators=(",", ":")).replace("\\u0000", "\ufffd")
    return written.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text


def _items(text: str) -> list[str]:
    if text.startswith("["):
        return [str(item) for item in json.loads(text)]
    body = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    lines = csv.reader(body.splitlines(), skipinitialspace=True, escapechar="\\")
    return [item for line in lines for part in line if (item := part.strip().strip('"'))]


def unreadable(name: str, typed: pl.DataFrame, binding: Binding) -> list[tuple[pl.Expr, str, str]]:
    """Return the check of an optional column whose unreadable value costs the row: it may be about money."""
    if f"bad:{name}" not in typed.columns:
        return []
    kind = next(column.kind for column in binding.contract.columns_for(binding.mode) if column.name == name)
    return [(pl.col(f"bad:{name}"), _INVALID[kind], name)]


def history(page: pl.DataFrame, typed: pl.DataFrame, binding: Binding, context: Context) -> pl.Series:
    """Return for every row of a page whether it is history: at or below the head of the first start."""
    if context.all_history or context.history_until is None:
        return pl.repeat(context.all_history, page.height, dtype=pl.Boolean, eager=True)
    if binding.kind == "id":
        below = page.select_seq(pl.col(binding.cursor).cast(pl.Int128, strict=False) <= context.history_until)
    else:
        below = typed.select_seq(pl.col("at").dt.epoch("us") <= context.history_until // 1000)
    return below.to_series().fill_null(value=True)


def mark(page: pl.DataFrame, binding: Binding) -> pl.Series:
    """Return each row's mark (see connector.position) at the precision of microseconds, null where it has none.

    An unsigned id beyond 64 bits is written as the greatest that fits: it is an address for audits, not an identity.
    """
    if binding.kind == "id":
        number = pl.col(binding.cursor).cast(pl.Int128, strict=False)
        return page.select_seq(number.clip(-_GREATEST, _GREATEST).cast(pl.Int64).alias("mark")).to_series()
    return instants(page[binding.cursor]).to_frame("at").select_seq(_nanoseconds("at").alias("mark")).to_series()


def _nanoseconds(name: str) -> pl.Expr:
    return pl.col(name).dt.epoch("us").cast(pl.Int128).mul(1000).cast(pl.Int64, strict=False)


def identified(page: pl.DataFrame, binding: Binding) -> pl.DataFrame:
    """Return each row's `brand_id`, `key`, `mark` and `amount` (a decimal text) as its event has them, and its `row`.

    The page holds the cursor, the key, and the columns that brand and amounts stand in: `identifying`.
    """
    brand = present(pl.col(binding.columns["ext_brand_id"]))
    named = {"brand_id": brand, "key": row_key(list(binding.key)), "mark": mark(page, binding)}
    return page.select_seq(**named, amount=plain(_amount(binding))).with_row_index("row")


def identifying(binding: Binding) -> tuple[str, ...]:
    """Return the view's columns that `identified` needs, cursor and key first."""
    amounts = [name for item in binding.amount_columns for name in (*item.columns, item.type_column) if name]
    if amounts and binding.scales:
        amounts.append(binding.columns["currency"])
    return tuple(dict.fromkeys((binding.cursor, *binding.key, binding.columns["ext_brand_id"], *amounts)))


def _amount(binding: Binding) -> pl.Expr:
    amounts = binding.amount_columns
    whole: pl.Expr = pl.lit(0, dtype=AMOUNT) if amounts and amounts[0].type_column else pl.lit(None, dtype=AMOUNT)
    for item in amounts:
        texts = [present(pl.col(name)) for name in item.columns]
        value = pl.coalesce(
            amounting.scaled(text, amounting.currency_of(binding), binding.scales)
            if binding.scales
            else amounting.amount(text)
            for text in texts
        )
        if item.type_column is None:
            return value
        said = pl.col(item.type_column).str.strip_chars().str.to_uppercase()
        whole = pl.when(said.is_in(item.types)).then(value).otherwise(whole)
    return whole


def split(
    page: pl.DataFrame, frame: pl.DataFrame, columns: Sequence[Column], checks: Sequence[tuple[pl.Expr, str, str]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Separate a typed frame into its good rows and the rejections, raw payload included.

    `checks` are the stream's own rules: (condition of a bad row, reason, field). A required column that is missing or
    invalid costs the row; an optional one only itself.
    """
    needed = [column for column in columns if column.required and not column.lenient]
    keys = [
        (pl.col("row_key").is_null(), "missing", "row key"),
        (pl.col("row_key").str.len_bytes() > KEY_BYTES, _TOO_LONG, "row key"),
    ]
    if "scaleless" in frame.columns:
        keys.append((pl.col("scaleless"), "missing, and amounts are in subunits of it", "currency"))
    rules = [*(rule for column in needed for rule in _required(column, frame)), *keys, *checks]
    good, refused = _judged(frame, rules)
    rejections = [_rejections(page, refused, kept=False)]
    optional = [rule for column in columns if column not in needed for rule in _lenient(column, frame)]
    optional += [
        (pl.col(name), "too long", name.removeprefix("long:extra:"))
        for name in frame.columns
        if name.startswith("long:extra:")
    ]
    rejections += [_rejections(page, lost, kept=True) for lost in _lost(good, optional)]
    return good, pl.concat(rejections)


def _judged(frame: pl.DataFrame, rules: Sequence[tuple[pl.Expr, str, str]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the rows that no rule objects to from the others, which bear the first reason and its field."""
    if not _applying(frame, rules):
        return frame, frame.clear()
    reasons = [pl.when(bad.fill_null(value=False)).then(pl.lit(reason)) for bad, reason, _ in rules]
    fields = [pl.when(bad.fill_null(value=False)).then(pl.lit(name)) for bad, _, name in rules]
    judged = frame.with_columns_seq(
        reason=pl.coalesce(reasons).cast(pl.String), field=pl.coalesce(fields).cast(pl.String)
    )
    good = judged.filter(pl.col("reason").is_null()).drop("reason", "field")
    return good, judged.filter(pl.col("reason").is_not_null())


def _applying(frame: pl.DataFrame, rules: Sequence[tuple[pl.Expr, str, str]]) -> list[tuple[pl.Expr, str, str]]:
    """Return the rules that some row breaks: mostly none, and so all are asked at once."""
    if not rules or frame.is_empty():
        return []
    broken = frame.select_seq(
        bad.fill_null(value=False).any().alias(str(n)) for n, (bad, _, _) in enumerate(rules)
    ).row(0)
    return [rule for rule, told in zip(rules, broken, strict=True) if told]


def refused(page: pl.DataFrame, binding: Binding, *, reason: str, field: str) -> pl.DataFrame:
    """Return a whole page as rejections."""
    return _rejections(
        page, typed(page, binding).with_columns_seq(reason=pl.lit(reason), field=pl.lit(field)), kept=False
    )


def _lost(good: pl.DataFrame, rules: Sequence[tuple[pl.Expr, str, str]]) -> Iterator[pl.DataFrame]:
    """Yield the rows that keep going without a value: each once a column, for the first reason."""
    told: dict[str, pl.Expr] = {}
    for bad, reason, name in _applying(good, rules):
        rows = good.filter(bad & ~told.get(name, pl.lit(value=False)))
        told[name] = bad | told.get(name, pl.lit(value=False))
        if rows.height:
            yield rows.with_columns_seq(reason=pl.lit(reason), field=pl.lit(name))


def _lenient(column: Column, frame: pl.DataFrame) -> list[tuple[pl.Expr, str, str]]:
    """Return the rules of a column that costs only itself; one that need not be there may be missing."""
    return [rule for rule in _required(column, frame) if rule[1] != "missing" or column.required]


def _required(column: Column, frame: pl.DataFrame) -> list[tuple[pl.Expr, str, str]]:
    rules = [(pl.col(column.name).is_null(), "missing", column.name)]
    if f"bad:{column.name}" in frame.columns:
        rules.insert(0, (pl.col(f"bad:{column.name}"), _INVALID[column.kind], column.name))
    if f"part:{column.name}" in frame.columns:
        rules.insert(0, (pl.col(f"part:{column.name}"), "not whole subunits", column.name))
    if f"long:{column.name}" in frame.columns:
        reason = _TOO_LONG if column.kind == "id" else "too long"
        rules.insert(0, (pl.col(f"long:{column.name}"), reason, column.name))
    return rules


def _rejections(page: pl.DataFrame, rows: pl.DataFrame, *, kept: bool) -> pl.DataFrame:
    if rows.is_empty():
        return pl.DataFrame(schema=REJECTIONS)
    shown = page[rows["row"]].select_seq(_shown(pl.col(name)).alias(name) for name in page.columns)
    raw = shown.select_seq(pl.struct(pl.all()).struct.json_encode().alias("raw"))
    transaction = next((name for name in ("transaction_id", "bet_id", "bonus_id") if name in rows.columns), None)
    return rows.with_columns_seq(
        raw["raw"],
        row_key=pl.col("row_key").map_elements(_short, return_dtype=pl.String, skip_nulls=True),
        transaction_id=pl.coalesce(transaction, "row_key") if transaction else pl.lit(None),
        brand_id="ext_brand_id" if "ext_brand_id" in rows.columns else pl.lit(None),
        external_id="user_ext_id" if "user_ext_id" in rows.columns else pl.lit(None),
        kept=pl.lit(kept),
    ).select_seq(pl.col(name).cast(dtype) for name, dtype in REJECTIONS.items())


def _short(key: str) -> str:
    """Return a key that fits an index; two that differ only far behind stay two."""
    raw = key.encode()
    return key if len(raw) <= KEY_BYTES else f"{key[: KEY_BYTES // 5]}#{hashlib.sha256(raw).hexdigest()[:32]}"


def _shown(text: pl.Expr) -> pl.Expr:
    size = text.str.len_bytes()
    cut = pl.concat_str(text.str.slice(0, _SHOWN_CHARACTERS), pl.lit("... ("), size, pl.lit(" bytes)"))
    return pl.when(size <= TEXT_BYTES).then(text).otherwise(cut)


def _dtype(column: Column) -> pl.DataType | type[pl.DataType]:
    return _DTYPES.get(column.kind, pl.String)
