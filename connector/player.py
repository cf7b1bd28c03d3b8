"""The canonical player profile: columns, status rules, and the events that a change of it means. Pure.

Sources of the rules: statuses and their three readings in the operator's guide and the Customer.io schema map (the
table in docs/architecture.md); events `self_exclusion_*` and `kyc_*` are UCRM's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import polars as pl

from connector.event import EVENTS, INSTANT, properties

#: One row a player, newest state. `traits` holds what has no column: optional and extra view columns, as JSON texts.
PROFILES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "status": pl.String,
    "status_raw": pl.String,
    "eligible": pl.Boolean,  # for marketing, as far as the row says it: no time comes into it
    "cooling_off_until": INSTANT,
    "rg_self_excluded_until": INSTANT,
    "registered_at": INSTANT,
    "last_login_at": INSTANT,
    "language": pl.String,
    "default_currency_code": pl.String,
    "username": pl.String,
    "first_name": pl.String,
    "last_name": pl.String,
    "email": pl.String,
    "phone": pl.String,
    "country": pl.String,
    "gender": pl.String,
    "date_of_birth": INSTANT,
    "kyc_status": pl.String,
    "affiliate_id": pl.String,
    "affiliate_str": pl.String,
    "email_disabled": pl.Boolean,
    "sms_disabled": pl.Boolean,
    "push_disabled": pl.Boolean,
    "calls_disabled": pl.Boolean,
    "telegram_id": pl.String,
    "wallets": pl.String,  # JSON array of {network, address}; null: not told
    "tags": pl.String,  # JSON array of texts; null: not told
    "groups": pl.String,  # JSON array of texts; null: not told
    "traits": pl.String,  # JSON object
    "source_updated_at": INSTANT,
    "cursor": pl.String,  # dt_update as the source wrote it
    "history": pl.Boolean,
}

#: What is known of a player before a profile replaces what was there.
BEFORE: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "status": pl.String,
    "kyc_status": pl.String,
    "is_stub": pl.Boolean,
    "last_login_at": INSTANT,
    "rg_self_excluded_until": INSTANT,
}
_IDENTITY: Final = ["brand_id", "external_id"]

#: core_account_status -> UCRM status. Whatever is not listed is kept raw and never marketable.
STATUSES: Final = {
    "ACTIVE": "active",
    "APPROVED": "active",
    "PENDING": "active",
    "SELF_EXCLUDED": "self_excluded",
    "BANNED": "banned",
    "BLOCKED": "banned",
    "SUSPENDED": "banned",
    "LOCKED": "banned",
    "DEACTIVATED": "banned",
}

#: core_kyc_status -> the event that arriving there means; other values change the profile only.
KYC_EVENTS: Final = {
    "VERIFIED": "kyc_approved",
    "APPROVED": "kyc_approved",
    "PENDING": "kyc_submitted",
    "SUBMITTED": "kyc_submitted",
    "REJECTED": "kyc_rejected",
    "EXPIRED": "kyc_expired",
}


@dataclass(frozen=True)
class MarketingRules:
    """Who may be marketed to: these statuses, unless one of these tags or groups says otherwise."""

    statuses: frozenset[str] = frozenset({"ACTIVE"})
    excluded_tags: frozenset[str] = frozenset()
    excluded_groups: frozenset[str] = frozenset()

    def written(self) -> str:
        """Return the rules as a text that is the same for the same rules."""
        parts = (self.statuses, self.excluded_tags, self.excluded_groups)
        return json.dumps([sorted(part) for part in parts], ensure_ascii=False)

    @classmethod
    def read(cls, text: str) -> MarketingRules:
        """Return the rules that were written as this text."""
        return cls(*(frozenset(part) for part in json.loads(text)))


def ucrm_status(raw: pl.Expr) -> pl.Expr:
    """Return the UCRM status of an upper-case operator status; an unknown one is `banned`: it must not be messaged."""
    return raw.replace_strict(STATUSES, default="banned", return_dtype=pl.String)


def eligible(rules: MarketingRules, *, unreadable: pl.Expr) -> pl.Expr:
    """Return who may be marketed to while no exclusion lasts: status allowed, no excluding tag or group, all readable.

    The store judges by the clock what is `marketable`: see store.players.
    """
    allowed = pl.col("status_raw").is_in(list(rules.statuses))
    tagged = _holds("tags", rules.excluded_tags) | _holds("groups", rules.excluded_groups)
    return allowed & ~tagged & ~unreadable


def _holds(column: str, excluded: frozenset[str]) -> pl.Expr:
    if not excluded:
        return pl.lit(value=False)
    listed = pl.col(column).str.json_decode(dtype=pl.List(pl.String))
    return listed.list.set_intersection(pl.lit(sorted(excluded), dtype=pl.List(pl.String))).list.len().fill_null(0) > 0


def changes(before: pl.DataFrame, after: pl.DataFrame, *, live_since: pl.Expr) -> pl.DataFrame:
    """Return the events that replacing profiles `before` by `after` means; history and backfill give none.

    `before` has the columns BEFORE of the players that existed. `live_since` is the instant after which a registration
    counts as a sign-up, and the first login seen of a player as one (null: never).
    """
    if after.is_empty():
        return pl.DataFrame(schema=EVENTS)
    old = before.select_seq(
        *_IDENTITY, *(pl.col(name).alias(f"old_{name}") for name in BEFORE if name not in _IDENTITY)
    )
    joined = after.filter(~pl.col("history")).join(old, on=_IDENTITY, how="left")
    joined = joined.with_columns_seq(known=(~pl.col("old_is_stub")).fill_null(value=False))
    known, login = pl.col("known"), pl.col("last_login_at")
    excluded, was = pl.col("status") == "self_excluded", pl.col("old_status") == "self_excluded"
    kyc = _spelled("kyc_status").replace_strict(KYC_EVENTS, default=None, return_dtype=pl.String)
    moved = pl.col("kyc_status").is_not_null() & _spelled("kyc_status").ne_missing(_spelled("old_kyc_status"))
    seen = pl.when(known).then("old_last_login_at")
    registered = (~known & (pl.col("registered_at") > live_since), "signup", pl.col("external_id"), "registered_at")
    logged_in = pl.concat_str("external_id", login.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), separator="|")
    updated = pl.concat_str("external_id", "cursor", separator="|")
    return pl.concat(
        [
            _events(joined, *registered),
            _events(joined, known & excluded & ~was, "self_exclusion_set", updated, "source_updated_at"),
            _events(joined, known & was & ~excluded, "self_exclusion_lifted", updated, "source_updated_at"),
            _events(joined, known & moved & kyc.is_not_null(), kyc, updated, "source_updated_at"),
            _events(joined, login > pl.coalesce(seen, live_since), "login", logged_in, "last_login_at"),
        ]
    )


def _spelled(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.to_uppercase()


def _events(joined: pl.DataFrame, condition: pl.Expr, name: pl.Expr | str, key: pl.Expr, instant: str) -> pl.DataFrame:
    """One event frame of the rows that meet a condition; UCRM requires a level on kyc_* and a reason on a lifting.

    A change without a time (a user row without `dt_update`) changes the profile and gives no event.
    """
    chosen = joined.filter(condition & pl.col(instant).is_not_null() & key.is_not_null()).with_columns_seq(
        name=pl.lit(name) if isinstance(name, str) else name, key=key, occurred_at=pl.col(instant)
    )
    named = pl.col("name")
    until = pl.coalesce("rg_self_excluded_until", "old_rg_self_excluded_until")
    lasts = (named == "self_exclusion_set") & (until > pl.col("occurred_at"))
    rejected = named.is_in(["self_exclusion_lifted", "kyc_rejected"])
    level = pl.coalesce(pl.col("traits").str.json_path_match("$.kyc_level"), pl.lit("1"))
    chosen = chosen.with_columns_seq(
        level=pl.when(named.str.starts_with("kyc_")).then(level),
        reason=pl.when(rejected).then(pl.lit("changed by the operator")),
        until=pl.when(lasts).then(until.dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
        effect=pl.when(named == "login").then(pl.lit("session")),
        sign=pl.when(named == "login").then(1),
    )
    missing = [column for column in EVENTS if column not in chosen.columns]
    return chosen.with_columns_seq(
        *(pl.lit(None, dtype=EVENTS[column]).alias(column) for column in missing if column != "properties"),
        properties=properties(chosen.select_seq("level", "reason", "until")),
    ).select_seq(pl.col(column).cast(dtype) for column, dtype in EVENTS.items())
