"""A player's Customer.io attributes: 123 names by default, every one of the operator's schema map that can be written.

Types are the map's: booleans are the texts "true" and "false", times unix seconds, counts and sums numbers, the last
deposit a text. What is unknown is absent, so that it is removed where it went before; a payment that never was is 0.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from connector.payments import LIFETIME, TOTAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.config import Attributes, Brand
    from connector.destinations.contract import Profile
    from connector.payments import Kind

#: A value beyond this is refused by the API and would cost the whole profile.
VALUE_BYTES: Final = 1_000
_DIRECT: Final = ("email", "phone", "first_name", "last_name", "country", "gender")
#: Trait -> attribute, as texts.
_TEXT_TRAITS: Final = ("timezone", "last_login_country", "subscription_token", "ga_id", "anonymous_id")
#: Attribute -> the trait that says it, and what holds where the operator does not say; None: nothing.
_FLAGS: Final = {
    "duplicates": ("duplicates", None),
    "accept_bonuses": ("accept_bonuses", "true"),
    "receive_promos_via_phone_calls": ("promo_phone", "false"),
    "agreed_to_partner_promotions": ("partner_promos", "false"),
}
#: Lifetimes in the base currency stand in crm.players (see store.windows.payments).
_LIFETIMES: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("deposit", "deposit_count", "total_deposited"),
    ("cashout", "withdrawal_count", "total_withdrawn"),
)
_ZERO: Final = Decimal(0)
_TRUE: Final = frozenset({"true", "t", "1", "yes", "y"})


def attributes(profile: Profile, brand: Brand | None, wanted: Attributes) -> dict[str, Any]:
    """Return a player's attributes. `unsubscribed` is not among them: it is Customer.io's own (see identify)."""
    values, traits = profile.values, profile.values.get("traits") or {}
    found: dict[str, Any] = {name: values.get(name) for name in _DIRECT}
    found |= {name: traits.get(name) for name in _TEXT_TRAITS}
    found |= {name: _flag(traits.get(trait), default) for name, (trait, default) in _FLAGS.items()}
    found |= {
        "date_of_birth": _seconds(values.get("date_of_birth")),
        "locale": (values.get("language") or "").lower() or None,
        "currency": values.get("default_currency_code"),
        "created_at": _seconds(values.get("created_at")),
        "confirmed_at": _written_seconds(traits.get("email_confirmed_at")),
        "disabled": _disabled(profile),
        "receive_promos": _inverse(values.get("email_disabled")),
        "receive_sms_promos": _inverse(values.get("sms_disabled")),
        "stag": traits.get("stag") or values.get("affiliate_str"),
        "tags": _array(values.get("tags")),
        "groups": _array(values.get("groups")),
        "server_codename": (brand.server_codename if brand else None) or profile.brand_id,
        "site_domain": brand.site_domain if brand else None,
        # PENDING may not be mailed yet, but nobody has excluded the player
        "self_excluded": True if profile.excluded and values.get("status_raw") != "PENDING" else None,
    }
    fitting = {
        name: value for name, value in found.items() if value is not None and len(str(value).encode()) <= VALUE_BYTES
    }
    return fitting | _payments(profile, wanted)


def _payments(profile: Profile, wanted: Attributes) -> dict[str, Any]:
    """Return counts and sums by window and currency, lifetimes, and the last deposit."""
    values, payments = profile.values, profile.payments
    counts, sums = dict(payments.counts), dict(payments.sums)
    for kind, number, total in _LIFETIMES:
        counts[kind, LIFETIME, TOTAL] = values.get(number) or 0
        sums[kind, LIFETIME, TOTAL] = Decimal(values.get(total) or 0).scaleb(-profile.places)
    found: dict[str, Any] = {}
    for key, count, amount in _told(tuple(wanted.windows), tuple(wanted.currencies), tuple(wanted.cashout_currencies)):
        found[count], found[amount] = counts.get(key, 0), sums.get(key, _ZERO)
    if payments.last_deposit is not None:
        found["last_sum_deposit"] = format(payments.last_deposit, f".{profile.places}f")
    if (last := values.get("last_deposit_at")) is not None:
        found["last_time_deposit"] = _seconds(last)
    return found


@functools.lru_cache
def _told(
    windows: tuple[str, ...], deposits: tuple[str, ...], cashouts: tuple[str, ...]
) -> list[tuple[tuple[Kind, str, str], str, str]]:
    """Return which payments are told, each with the names of its count and its sum."""
    kinds: list[tuple[Kind, tuple[str, ...]]] = [("deposit", deposits), ("cashout", cashouts)]
    told = []
    for kind, currencies in kinds:
        for period in (LIFETIME, *windows):
            name = f"{LIFETIME}_{kind}_{{}}" if period == LIFETIME else f"{kind}_{{}}_{period}"
            for currency in (TOTAL, *currencies):
                count, amount = (f"{name.format(what)}_{currency}".lower() for what in ("count", "sum"))
                told.append(((kind, period, currency), count, amount))
    return told


def _disabled(profile: Profile) -> str:
    values = profile.values
    if values.get("rg_self_excluded"):
        return "self_excluded"
    if values.get("status") not in {"active", "conflict"}:
        return "disabled"
    until = values.get("cooling_off_until")
    return "cooling_off" if until is not None and until > profile.at else "none"


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())


def _written_seconds(text: str | None) -> int | None:
    try:
        return None if text is None else int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def _inverse(disabled: bool | None) -> str | None:
    return None if disabled is None else "false" if disabled else "true"


def _flag(text: object, default: str | None) -> str | None:
    if text is None:
        return default
    return "true" if str(text).strip().lower() in _TRUE else "false"


def _array(items: Sequence[str] | None) -> str | None:
    """Return labels as a JSON array, byte for byte; of more than fit, those that come first in the source's order."""
    if items is None:
        return None
    kept = list(items)
    while len((text := json.dumps(kept, ensure_ascii=False, separators=(",", ":"))).encode()) > VALUE_BYTES:
        kept.pop()
    return text
