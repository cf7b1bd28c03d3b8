"""Segments that most casinos want, to begin with: the built-in ones and the deposit, VIP and retention cohorts.

Money is in the smallest unit of the base currency, so thresholds depend on its decimal places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_NOT_EXCLUDED: Final = {"type": "trait", "field": "rg_self_excluded", "op": "=", "value": False}


@dataclass(frozen=True)
class Template:
    """A segment to start from: what it is called, what it is for, and its definition as JSON."""

    name: str
    description: str
    definition: dict[str, Any]


def templates(places: int = 2) -> dict[str, Template]:
    """Return the templates by the name that a command takes; `places`: decimals of the base currency."""
    return {**_common(10**places), **_deposits(), **_vip(10**places), **_churn()}


def _all(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": "AND", "conditions": list(conditions)}


def _any(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": "OR", "conditions": list(conditions)}


def _trait(field: str, op: str, value: object) -> dict[str, Any]:
    return {"type": "trait", "field": field, "op": op, "value": value}


def _done(event: str, days: int, aggregation: str, op: str, value: int) -> dict[str, Any]:
    window = {"kind": "rolling", "days": days}
    return {"type": "event", "event": event, "window": window, "aggregation": aggregation, "op": op, "value": value}


def _ago(days: int) -> dict[str, Any]:
    return {"kind": "rolling", "days": days}


def _common(unit: int) -> dict[str, Template]:
    return {
        "high-rollers": Template(
            "High rollers",
            "wagered 10,000 or more within 30 days",
            _all(
                _any(
                    _done("bet_placed", 30, "sum", ">=", 10_000 * unit),
                    _done("sport_bet_placed", 30, "sum", ">=", 10_000 * unit),
                ),
                _NOT_EXCLUDED,
            ),
        ),
        "churn-risk": Template(
            "Churn risk",
            "depositors last seen 14 to 30 days ago, or whose churn score is above 0.7",
            _all(
                _trait("deposit_count", ">", 0),
                _any(
                    _all(_trait("last_seen_at", "<", _ago(14)), _trait("last_seen_at", ">=", _ago(30))),
                    _trait("churn_score", ">", 0.7),
                ),
                _NOT_EXCLUDED,
            ),
        ),
        "first-deposit-declined": Template(
            "First-deposit declined",
            "no deposit yet, and one that failed within 7 days",
            _all(_trait("deposit_count", "=", 0), _done("deposit_failed", 7, "count", ">=", 1), _NOT_EXCLUDED),
        ),
        "sportsbook-bettors": Template(
            "Sportsbook bettors",
            "a bet in the sportsbook within 30 days",
            _all(_trait("vertical_activity.sportsbook.last_bet_at", ">=", _ago(30)), _NOT_EXCLUDED),
        ),
        "vip-candidates": Template(
            "VIP candidates",
            "deposited 1,000 or more within 30 days or 5,000 ever, and bears no tag vip yet",
            _all(
                _any(
                    _done("deposit_confirmed", 30, "sum", ">=", 1_000 * unit),
                    _trait("total_deposited", ">=", 5_000 * unit),
                ),
                _trait("tags", "not_in", ["vip"]),
                _NOT_EXCLUDED,
            ),
        ),
    }


def _deposits() -> dict[str, Template]:
    counted = {
        f"dep-{count}": Template(f"DEP {count}", f"deposits in all: {count}", _all(_trait("deposit_count", "=", count)))
        for count in (1, 2, 3, 4)
    }
    return {
        **counted,
        "dep-5-plus": Template("DEP 5+", "five deposits or more", _all(_trait("deposit_count", ">", 4))),
        "all-depositors": Template("All Depositors", "a deposit or more", _all(_trait("deposit_count", ">", 0))),
        "rnd": Template("RND", "registered, no deposit", _all(_trait("deposit_count", "=", 0))),
    }


def _vip(unit: int) -> dict[str, Template]:
    thresholds = (
        _trait("tags", "contains", "pre-vip"),
        _done("deposit_confirmed", 365, "last", ">", 250 * unit),
        _done("deposit_confirmed", 1, "sum", ">", 350 * unit),
        _done("deposit_confirmed", 30, "sum", ">", 2_000 * unit),
        _done("deposit_confirmed", 90, "sum", ">", 5_000 * unit),
    )
    told = "tag pre-vip, or last deposit over 250, or over 350 today, 2,000 in 30 days or 5,000 in 90"
    return {
        "pre-vip": Template("VIP 0 (Pre-VIP)", told, _any(*thresholds)),
        "vip": Template("VIP", "tag vip", _all(_trait("tags", "contains", "vip"))),
    }


def _churn() -> dict[str, Template]:
    """Depositors by how long ago they were last seen: N days ago is the day before a window of N days begins."""
    return {
        f"churn-{near}-{far}": Template(
            f"Churn {near}-{far} Days",
            f"depositors last seen {near} to {far} days ago",
            _all(
                _trait("deposit_count", ">", 0),
                _trait("last_seen_at", "<", _ago(near)),
                _trait("last_seen_at", ">=", _ago(far)),
            ),
        )
        for near, far in ((15, 60), (60, 360))
    }
