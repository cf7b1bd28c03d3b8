"""The canonical event frame: its columns and types, its names, and ids that never change.

Owns what every part agrees on between a view's text and the store's rows. It knows no view and no table.
Event names and required properties are UCRM's (docs.casinocrm.io, canonical events); `custom_*` for the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Native amounts: 20 digits before the point, 18 after it, never a float.
AMOUNT: Final = pl.Decimal(38, 18)
INSTANT: Final = pl.Datetime("us", "UTC")

#: Whose a row is, in every frame: an account of a brand.
ACCOUNT: Final = ("brand_id", "external_id")

#: One row an event. Null `currency` means the player's own; `effect` names the total that `sign * amount` adds to.
EVENTS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "key": pl.String,  # the row key; unique with stream, brand and name
    "name": pl.String,
    "transaction_id": pl.String,
    "occurred_at": INSTANT,
    "amount": AMOUNT,
    "currency": pl.String,
    "effect": pl.String,
    "sign": pl.Int8,
    "stake": AMOUNT,  # wagered by the same row (win_per_bet only)
    "properties": pl.String,  # JSON: an object without nulls; null: `packed` has them
    "packed": pl.String,  # the values of a shape (see `packed`)
    "history": pl.Boolean,
    "mark": pl.Int64,  # the row's cursor as an integer (see connector.position); null: it has none that fits
}

#: One row a rejected source row, or (kept) a row that lost an optional field.
REJECTIONS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "reason": pl.String,
    "field": pl.String,
    "row_key": pl.String,
    "transaction_id": pl.String,
    "brand_id": pl.String,
    "external_id": pl.String,
    "kept": pl.Boolean,
    "raw": pl.String,  # the row as the source wrote it, JSON of texts
    "mark": pl.Int64,
}

#: What a total counts when an event carries this effect.
EFFECTS: Final = ("deposited", "withdrawn", "wagered", "won", "session")
#: Their numbers in the store's narrow rows; negative, where an event takes back.
EFFECT_CODES: Final = {name: code for code, name in enumerate(EFFECTS, start=1)}

#: Ids of names in the store's narrow rows: append only, never renumber.
NAMES: Final = (
    "signup",
    "self_exclusion_set",
    "self_exclusion_lifted",
    "kyc_submitted",
    "kyc_approved",
    "kyc_rejected",
    "kyc_expired",
    "deposit_confirmed",
    "custom_deposit_reversed",
    "withdrawal_requested",
    "custom_withdrawal_approved",
    "withdrawal_confirmed",
    "withdrawal_failed",
    "custom_withdrawal_reversed",
    "bet_placed",
    "bet_settled",
    "custom_bet_rolled_back",
    "login",
    "deposit_initiated",
    "deposit_failed",
    "sport_bet_placed",
    "custom_sport_bet_selection_open",
    "sport_bet_settled",
    "sport_bet_voided",
    "sport_cashout",
    "custom_sport_bet_selection_settled",
    "bonus_claimed",
    "bonus_wagered",
    "bonus_completed",
    "bonus_expired",
    "custom_bonus_activated",
    "custom_bonus_cancelled",
    "custom_sport_bet_rolled_back",
    "custom_segment_entered",
    "custom_segment_left",
)

#: Not an event of its own: what a destination may be told of a player's balance, with the events that carry one.
PLAYER_BALANCE: Final = "player_balance"
BALANCE_CARRIERS: Final = (
    *("deposit_confirmed", "custom_deposit_reversed", "withdrawal_requested", "custom_withdrawal_approved"),
    *("withdrawal_confirmed", "withdrawal_failed", "custom_withdrawal_reversed"),
)

#: Events whose money and bets belong to the sportsbook; all others are the casino's.
SPORT: Final = (
    *("sport_bet_placed", "sport_bet_settled", "sport_bet_voided", "sport_cashout"),
    "custom_sport_bet_rolled_back",
)

#: Between the values of a shape: ASCII's unit separator, which hardly any text has.
_BETWEEN: Final = "\x1f"
_KEY_PART: Final = re.compile(r"((?:[^\\|]|\\.)*)\|", re.DOTALL)
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', **{chr(code): f"\\u{code:04x}" for code in range(32)}}
#: What a destination never gets twice needs an id that never changes: 26 characters of Crockford's base 32.
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Ten bits at once: a backlog needs millions of ids.
_PAIRS: Final = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def empty(schema: dict[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """Return a frame of no rows."""
    return pl.DataFrame(schema=schema)


def row_key(parts: list[str]) -> pl.Expr:
    """Join key columns to one text so that different parts can never give the same text.

    A single key column stays as it is; of several, backslash and bar are escaped and bars put between.
    """
    if len(parts) == 1:
        return pl.col(parts[0])
    escaped = [
        pl.col(part).str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        for part in parts
    ]
    return pl.concat_str(escaped, separator="|")


def key_parts(key: str, count: int) -> tuple[str, ...] | None:
    """Return the key columns that `row_key` joined to a text, None if they are not so many."""
    if count == 1:
        return (key,)
    parts = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _KEY_PART.findall(key + "|")]
    return tuple(parts) if len(parts) == count else None


def properties(texts: pl.DataFrame) -> pl.Series:
    """Return each row's JSON object of the named texts, nulls left out.

    Columns without a null are written together by compiled code; only the others need a concatenation each.
    """
    columns = texts.select_seq(pl.all().cast(pl.String)).get_columns()
    always = [column for column in columns if not column.null_count()]
    members = [
        pl.concat_str(pl.lit(f",{json.dumps(column.name)}:"), json_text(pl.lit(column)))
        for column in columns
        if 0 < column.null_count() < len(column)
    ]
    if not always and not members:
        return pl.repeat("{}", texts.height, dtype=pl.String, eager=True).alias("properties")
    first = pl.struct(always).struct.json_encode().str.strip_suffix("}") if always else pl.lit("{")
    whole = pl.concat_str(first, *members, pl.lit("}"), ignore_nulls=True).alias("properties")
    written = texts.select_seq(whole).to_series()
    return written if always else written.str.replace("{,", "{", literal=True)


def packed(texts: pl.DataFrame) -> pl.DataFrame:
    """Return each row's properties, named by the columns: its values as `packed`, or where they can't be `properties`.

    Values stand in the order of the columns with U+001F between them, nothing for null, nulls at the end left out: any
    text is such values, and nobody has to parse it. What they mean is said once, by the columns' names: the shape. In a
    ledger of bets names would take more room in each row than values. `named` is the way back.
    """
    texts = texts.select_seq(pl.all().cast(pl.String))
    columns = texts.get_columns()
    filled = [pl.col(column.name).fill_null("") if column.null_count() else pl.col(column.name) for column in columns]
    joined = texts.select_seq(pl.concat_str(filled, separator=_BETWEEN).alias("packed")).to_series()
    odd = joined.str.count_matches(_BETWEEN, literal=True) != len(columns) - 1  # a value has one of its own
    for column, least in zip(columns, texts.select_seq(pl.all().str.len_bytes().min()).row(0), strict=True):
        if least == 0:
            odd |= (column == "").fill_null(value=False)
    told = joined.str.strip_chars_end(_BETWEEN).to_frame()
    if not odd.any():  # as nearly always
        return told.select_seq(pl.lit(None, dtype=pl.String).alias("properties"), "packed")
    whole = properties(texts)
    return told.select_seq(pl.when(odd).then(whole).alias("properties"), pl.when(~odd).then("packed").alias("packed"))


def named(shape: Sequence[str] | None, properties: Mapping[str, str] | None, packed: str | None) -> Mapping[str, str]:
    """Return an event's properties by name, as the ledger has them: an object, or else the values of a shape."""
    if packed is None:
        return properties or {}
    return {name: value for name, value in zip(shape or (), packed.split(_BETWEEN), strict=False) if value}


def json_text(text: pl.Expr) -> pl.Expr:
    """Return texts as JSON strings, null for null."""
    return pl.concat_str(pl.lit('"'), text.cast(pl.String).str.replace_many(_ESCAPES), pl.lit('"'))


def ulid(occurred_ms: int, identity: tuple[str, ...]) -> str:
    """Return the deterministic ULID of an event: 48 bits of business time, 80 bits of hash of its identity.

    `identity` is (tenant, source, stream, generation, brand, row key, name); a resend gives the same 26 characters.
    """
    digest = hashlib.sha256("\x1f".join(identity).encode()).digest()
    number = (max(occurred_ms, 0) & (1 << 48) - 1) << 80 | int.from_bytes(digest[:10], "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
