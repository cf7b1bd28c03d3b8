"""What a trait condition may name: every field with its kind and where it stands. Nothing else reaches the SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from connector.event import NAMES

Kind = Literal["text", "number", "time", "flag", "labels", "contact"]
Aggregation = Literal["count", "sum", "min", "max", "last"]

_EQUAL: Final = ("=", "!=")
_ORDER: Final = (">", ">=", "<", "<=")
_SET: Final = ("in", "not_in")
_PART: Final = ("contains", "starts_with")
#: Operators that make sense for a kind.
OPERATORS: Final[dict[Kind, tuple[str, ...]]] = {
    "text": (*_EQUAL, *_SET, *_PART, "exists"),
    "number": (*_EQUAL, *_ORDER, *_SET, "exists"),
    "time": (*_EQUAL, *_ORDER, *_SET, "exists"),
    "flag": (*_EQUAL, "exists"),
    "labels": ("contains", *_SET, "exists"),
    "contact": (*_EQUAL, *_SET, *_PART, "exists"),
}
AGGREGATIONS: Final[tuple[Aggregation, ...]] = ("count", "sum", "min", "max", "last")
EVENT_OPERATORS: Final = (*_EQUAL, *_ORDER, *_SET)
#: Entering and leaving segments is not what segments are made of.
EVENTS: Final = tuple(name for name in NAMES if not name.startswith("custom_segment_"))


@dataclass(frozen=True)
class Field:
    """A field: its kind, its SQL over `crm.players p`, and what says that it is there, where that is not `not null`."""

    kind: Kind
    sql: str
    present: str = ""


def _trait(*names: str) -> str:
    said = ", ".join(f"p.traits ->> '{name}'" for name in names)
    return f"coalesce({said})"


def _numeric(name: str) -> str:
    """Return a trait as a number; a text that is none counts as absent."""
    text = f"p.traits ->> '{name}'"
    return f"case when {text} ~ '^[+-]?[0-9]{{1,30}}([.][0-9]{{1,30}})?$' then ({text})::numeric end"


def _consent(kind: str) -> str:
    granted = f"p.consents -> '{kind}' -> 'granted'"
    return f"case {granted} when 'true' then true when 'false' then false end"


_VERTICALS: Final = {
    "casino": {
        "wagered": "p.total_wagered - p.sport_wagered",
        "won": "p.total_won - p.sport_won",
        "ggr": "p.ggr - p.sport_wagered + p.sport_won",
        "bet_count": "p.bet_count - p.sport_bet_count",
        "last_bet_at": "p.last_casino_bet_at",
    },
    "sportsbook": {
        "wagered": "p.sport_wagered",
        "won": "p.sport_won",
        "ggr": "p.sport_wagered - p.sport_won",
        "bet_count": "p.sport_bet_count",
        "last_bet_at": "p.last_sport_bet_at",
    },
}
_TEXTS: Final = (
    *("external_id", "telegram_id", "status", "kyc_status", "default_currency_code"),
    *("brand_id", "country", "language"),
)
_NUMBERS: Final = (
    *("total_deposited", "total_withdrawn", "total_wagered", "total_won", "ggr", "bet_count", "session_count"),
    *("deposit_count", "withdrawal_count"),
)
_TIMES: Final = (*("first_seen_at", "last_seen_at", "last_bet_at", "last_deposit_at", "created_at", "date_of_birth"),)
FIELDS: Final[dict[str, Field]] = {
    "email": Field("contact", "email"),
    "phone": Field("contact", "phone"),
    **{name: Field("text", f"p.{name}") for name in _TEXTS},
    "current_tier_code": Field("text", _trait("current_tier_code", "tier_code")),
    "timezone": Field("text", _trait("timezone")),
    **{name: Field("number", f"p.{name}") for name in _NUMBERS},
    **{name: Field("number", _numeric(name)) for name in ("kyc_level", "churn_score", "ltv_predicted")},
    **{name: Field("time", f"p.{name}") for name in _TIMES},
    **{name: Field("flag", f"p.{name}") for name in ("rg_self_excluded", "marketable")},
    **{f"consents.{kind}": Field("flag", _consent(kind)) for kind in ("email", "sms", "push", "phone")},
    **{name: Field("labels", f"p.{name}", present=f"p.{name} <> '[]'") for name in ("tags", "groups")},
    **{
        f"vertical_activity.{vertical}.{name}": Field(
            "time" if name.endswith("_at") else "number", sql, present=f"p.vertical_activity ? '{vertical}'"
        )
        for vertical, columns in _VERTICALS.items()
        for name, sql in columns.items()
    },
}
