"""Players and events as Customer.io Track v2 operations. Pure: bytes out, nothing sent.

Shapes and limits: Customer.io's Track API v2 specification; attribute names: the operator's schema map.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from connector.destinations.contract import Item, Previous, Profile, StoredEvent
from connector.event import ulid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from connector.config import Brand

#: kb is 1000 or 1024: the smaller reading, with room for the envelope. Measured on serialised UTF-8.
BATCH_BYTES: Final = 475_000
ITEM_BYTES: Final = 32_000
#: An attribute value beyond this is refused by the API and would cost the whole profile.
VALUE_BYTES: Final = 1_000
_ENVELOPE: Final = len(b'{"batch":[]}')

#: These names in an event's data would redirect a campaign's mail.
_RESERVED: Final = frozenset({"recipient", "from_address", "reply_to"})
#: Properties that are amounts: decimal texts in the store, numbers at the API.
_AMOUNTS: Final = frozenset(
    {"payout", "bet_amount", "amount_real", "amount_bonus", "fee", "bonus_balance", "real_balance", "total_balance"}
)
_DIRECT: Final = ("email", "phone", "first_name", "last_name", "country", "gender")
#: Trait -> attribute, as texts.
_TEXT_TRAITS: Final = ("timezone", "last_login_country", "subscription_token", "ga_id", "anonymous_id")
_FLAG_TRAITS: Final = {
    "duplicates": "duplicates",
    "accept_bonuses": "accept_bonuses",
    "promo_phone": "receive_promos_via_phone_calls",
    "partner_promos": "agreed_to_partner_promotions",
}
_TRUE: Final = frozenset({"true", "t", "1", "yes", "y"})


def customer_id(brand_id: str, external_id: str, brand: Brand | None) -> str:
    """Return the person's id: the brand's template, or brand and id with a colon."""
    template = brand.customer_id if brand else "{ext_brand_id}:{user_ext_id}"
    return template.format(ext_brand_id=brand_id, user_ext_id=external_id)


def attributes(profile: Profile, brand: Brand | None) -> dict[str, Any]:
    """Return a player's attributes: direct and configured ones, and optional columns under their attribute names.

    Booleans are the texts "true" and "false" except `unsubscribed`; times are unix seconds; what is unknown is absent.
    """
    values, traits = profile.values, profile.values.get("traits") or {}
    found: dict[str, Any] = {name: values.get(name) for name in _DIRECT}
    found |= {name: traits.get(name) for name in _TEXT_TRAITS}
    found |= {name: _flag(traits[trait]) for trait, name in _FLAG_TRAITS.items() if trait in traits}
    found |= {
        "date_of_birth": _seconds(values.get("date_of_birth")),
        "locale": (values.get("language") or "").lower() or None,
        "currency": values.get("default_currency_code"),
        "created_at": _seconds(values.get("created_at")),
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
    return {
        name: value for name, value in found.items() if value is not None and len(str(value).encode()) <= VALUE_BYTES
    }


def identify(profile: Profile, brand: Brand | None, previous: Previous) -> Item:
    """Return the identify of a whole profile. It carries no timestamp: an older one than the last edit is dropped.

    `unsubscribed` is Customer.io's own: set while the player is excluded, taken back only if we had set it.
    """
    known = attributes(profile, brand)
    if profile.excluded:
        known["unsubscribed"] = True
    elif previous.unsubscribed_by_us:
        known["unsubscribed"] = False
    names = frozenset(known) - {"unsubscribed"}
    removed = dict.fromkeys(sorted(previous.names - names))
    digest = hashlib.sha256(_dump(known).encode()).digest()
    body = _dump(
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": customer_id(profile.brand_id, profile.external_id, brand)},
            "attributes": known | removed,
        }
    )
    return Item(
        "profile",
        profile.player_id,
        body.encode(),
        name="identify",
        digest=digest,
        names=names,
        unsubscribed=profile.excluded,
    )


def event(stored: StoredEvent, brand: Brand | None, name: str) -> Item:
    """Return an event with a deterministic ULID, unix seconds and amounts as exact decimal numbers."""
    data: dict[str, Any] = {
        _renamed(key): _number(value) if key in _AMOUNTS else value for key, value in stored.properties.items()
    }
    data |= {"transaction_id": stored.transaction_id}
    if stored.amount is not None:
        data |= {"amount": stored.amount, "currency": stored.currency}
    body = _dump(
        {
            "type": "person",
            "action": "event",
            "identifiers": {"id": customer_id(stored.brand_id, stored.external_id, brand)},
            "name": name,
            "id": ulid(int(stored.occurred_at.timestamp() * 1000), stored.identity),
            "timestamp": int(stored.occurred_at.timestamp()),
            "attributes": {key: value for key, value in data.items() if value is not None},
        }
    )
    return Item("event", stored.player_id, body.encode(), name=name, seq=stored.seq)


def pack(items: Sequence[Item]) -> list[list[Item]]:
    """Cut items into batches of at most BATCH_BYTES, measured before an item is added; order is kept.

    A player's profile and events never share a batch (the API promises no order inside one), so a batch also ends
    where profiles end and events begin.
    """
    batches: list[list[Item]] = []
    size = _ENVELOPE
    for item in items:
        if not batches or size + len(item.body) + 1 > BATCH_BYTES or batches[-1][-1].kind != item.kind:
            batches.append([])
            size = _ENVELOPE
        batches[-1].append(item)
        size += len(item.body) + 1
    return batches


def _dump(value: Any) -> str:
    """Serialise with decimals as exact number literals, which the json module can't do."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{_dump(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _number(text: object) -> object:
    """Return an amount as a number; what an operator's own column of that name holds may be no amount."""
    try:
        number = Decimal(str(text))
    except InvalidOperation:
        return text
    return number if number.is_finite() else text


def _renamed(name: str) -> str:
    return f"source_{name.lstrip('_')}" if name in _RESERVED or name.startswith("_") else name


def _disabled(profile: Profile) -> str:
    if profile.values.get("rg_self_excluded"):
        return "self_excluded"
    if profile.values.get("status") != "active":
        return "disabled"
    cooling = (profile.values.get("traits") or {}).get("cooling_off_until")
    return "cooling_off" if profile.excluded and cooling else "none"


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())


def _inverse(disabled: bool | None) -> str | None:
    return None if disabled is None else "false" if disabled else "true"


def _flag(text: str) -> str:
    return "true" if str(text).strip().lower() in _TRUE else "false"


def _array(items: Sequence[str] | None) -> str | None:
    return None if items is None else json.dumps(list(items), ensure_ascii=False, separators=(",", ":"))
