"""Players and events as Customer.io Track v2 operations. Pure: bytes out, nothing sent.

Shapes and limits: Customer.io's Track API v2 specification; attribute names: the operator's schema map.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from connector.destinations.contract import Item, Previous, Profile, StoredEvent
from connector.destinations.customerio_attributes import attributes
from connector.event import PLAYER_BALANCE, ulid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.config import Attributes, Brand

#: kb is 1000 or 1024: the smaller reading, with room for the envelope. Measured on serialised UTF-8.
BATCH_BYTES: Final = 475_000
ITEM_BYTES: Final = 32_000
#: People of one request that adds them to a manual segment, or takes them out.
SEGMENT_IDS: Final = 1_000
_ENVELOPE: Final = len(b'{"batch":[]}')

#: What a manual segment is remembered by among the names that went: no attribute is called so.
_MANUAL: Final = "segment:"
#: These names in an event's data would redirect a campaign's mail.
_RESERVED: Final = frozenset({"recipient", "from_address", "reply_to"})
#: Properties that are numbers: decimal texts in the store, numbers at the API.
_NUMBERS: Final = frozenset(
    {
        *("payout", "bet_amount", "amount_real", "amount_bonus", "fee", "bonus_balance", "real_balance"),
        *("total_balance", "potential_win", "total_odds", "odds", "wager_requirement", "wagered_amount"),
        *("selection_count", "spins"),
    }
)


def customer_id(brand_id: str, external_id: str, brand: Brand | None) -> str:
    """Return the person's id: the brand's template, or brand and id with a colon."""
    template = brand.customer_id if brand else "{ext_brand_id}:{user_ext_id}"
    return template.format(ext_brand_id=brand_id, user_ext_id=external_id)


def identify(
    profile: Profile,
    brand: Brand | None,
    previous: Previous,
    wanted: Attributes,
    segments: Mapping[str, str | int] | None = None,
) -> Item:
    """Return the identify of a whole profile. It carries no timestamp: an older one than the last edit is dropped.

    `unsubscribed` is Customer.io's own: set while the player is excluded, taken back only if we had set it and the
    operator tells of no opt-out; as long as one stands, what we set stays ours to take back.
    """
    told = [place for name, place in (segments or {}).items() if name in profile.segments]
    known = {name: "true" for name in told if isinstance(name, str)} | attributes(profile, brand, wanted)
    manual = frozenset(f"{_MANUAL}{number}" for number in told if isinstance(number, int))
    gone = frozenset(name for name in previous.names if name.startswith(_MANUAL)) - manual
    kept = not profile.excluded and previous.unsubscribed_by_us and profile.values.get("email_disabled") is True
    if profile.excluded:
        known["unsubscribed"] = True
    elif previous.unsubscribed_by_us and not kept:
        known["unsubscribed"] = False
    names = frozenset(known) - {"unsubscribed"}
    removed = dict.fromkeys(sorted(previous.names - names - manual - gone))
    digest = hashlib.sha256("".join((_dump(known), *sorted(manual))).encode()).digest()
    person = customer_id(profile.brand_id, profile.external_id, brand)
    body = _dump(
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": person},
            "attributes": known | removed,
        }
    )
    return Item(
        "profile",
        profile.player_id,
        body.encode(),
        name="identify",
        digest=digest,
        names=names | manual,
        unsubscribed=profile.excluded or kept,
        person=person,
        joins=_numbers(manual),
        leaves=_numbers(gone),
    )


def _numbers(manual: frozenset[str]) -> frozenset[int]:
    return frozenset(int(name.removeprefix(_MANUAL)) for name in manual)


def suppress(profile: Profile, brand: Brand | None) -> Item:
    """Return what deletes a person, and blocks its identifiers from then on."""
    identifiers = {"id": customer_id(profile.brand_id, profile.external_id, brand)}
    body = _dump({"type": "person", "action": "suppress", "identifiers": identifiers}).encode()
    return Item("profile", profile.player_id, body, name="suppress", digest=hashlib.sha256(body).digest())


def event(stored: StoredEvent, brand: Brand | None, name: str) -> Item:
    """Return an event with a deterministic ULID, unix seconds and amounts as exact decimal numbers."""
    data: dict[str, Any] = {
        _renamed(key): _number(value) if key in _NUMBERS else value for key, value in stored.properties.items()
    }
    data |= {"transaction_id": stored.transaction_id}
    if stored.amount is not None:
        data |= {"amount": stored.amount, "currency": stored.currency}
    if stored.name == "login":
        data |= {"last_log_in": int(stored.occurred_at.timestamp())}
    return _event(stored, brand, name, stored.identity, data)


def balance(stored: StoredEvent, brand: Brand | None, name: str) -> Item | None:
    """Return the balance that an event tells of, {"EUR": "20.04"}, as an event of its own; None: it tells of none."""
    amount = stored.properties.get("total_balance") or stored.properties.get("real_balance")
    if amount is None or stored.currency is None:
        return None
    return _event(stored, brand, name, (*stored.identity, PLAYER_BALANCE), {stored.currency: amount})


def _event(
    stored: StoredEvent, brand: Brand | None, name: str, identity: tuple[str, ...], data: Mapping[str, Any]
) -> Item:
    body = _dump(
        {
            "type": "person",
            "action": "event",
            "identifiers": {"id": customer_id(stored.brand_id, stored.external_id, brand)},
            "name": name,
            "id": ulid(int(stored.occurred_at.timestamp() * 1000), identity),
            "timestamp": int(stored.occurred_at.timestamp()),
            "attributes": {key: value for key, value in data.items() if value is not None},
        }
    )
    return Item("event", stored.player_id, body.encode(), name=name, seq=stored.seq)


def pack(items: Sequence[Item]) -> list[list[Item]]:
    """Cut items into batches of at most BATCH_BYTES, measured before an item is added; order is kept.

    A player's profile and events never share a batch (the API promises no order inside one), so a batch also ends
    where profiles end and events begin. What one stored event became is never parted: it is settled as one.
    """
    batches: list[list[Item]] = []
    size = _ENVELOPE
    for _, group in itertools.groupby(
        items, key=lambda item: (item.kind, item.player_id if item.seq is None else item.seq)
    ):
        together = list(group)
        bytes_more = sum(len(item.body) + 1 for item in together)
        if not batches or size + bytes_more > BATCH_BYTES or batches[-1][-1].kind != together[0].kind:
            batches.append([])
            size = _ENVELOPE
        batches[-1] += together
        size += bytes_more
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
