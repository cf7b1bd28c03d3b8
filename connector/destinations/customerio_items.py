"""Players and events as Customer.io Track v2 operations. Pure: bytes out, nothing sent.

Shapes and limits: Customer.io's Track API v2 specification; attribute names: the operator's schema map.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import operator
import re
from decimal import Decimal, InvalidOperation
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Any, Final

from connector.destinations.contract import Item, Previous, Profile, StoredEvent
from connector.destinations.customerio_attributes import attributes
from connector.event import PLAYER_BALANCE, ulid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connector.config import Attributes, Brand

#: kb is 1000 or 1024: the smaller reading, with room for the envelope. Measured on serialised UTF-8.
BATCH_BYTES: Final = 475_000
ITEM_BYTES: Final = 32_000
#: People of one request that adds them to a manual segment, or takes them out.
SEGMENT_IDS: Final = 1_000
_ENVELOPE: Final = len(b'{"batch":[]}')
#: What one stored event, or one player, became.
_WHOLE: Final = operator.attrgetter("kind", "player_id", "seq")

#: What a manual segment is remembered by among the names that went: no attribute is called so.
_MANUAL: Final = "segment:"
#: An event's own attributes, as they stand before their values.
_TRANSACTION, _AMOUNT, _CURRENCY, _LAST_LOG_IN = '"transaction_id":', '"amount":', '"currency":', '"last_log_in":'
#: A number that is written as it stands, but for noughts at its end.
_PLAIN: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
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
    written = _dump(known)
    digest = hashlib.sha256("".join((written, *sorted(manual))).encode()).digest()
    person = customer_id(profile.brand_id, profile.external_id, brand)
    attributed = _dump(known | removed) if removed else written
    body = f'{{"type":"person","action":"identify","identifiers":{{"id":{_quoted(person)}}},"attributes":{attributed}}}'
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
    data: dict[str, str] = {}
    for key, value in stored.properties.items():
        if value is not None:
            member, written = _member(key)
            data[member] = written(value)
    data[_TRANSACTION] = _quoted(stored.transaction_id)
    if stored.amount is not None:
        data[_AMOUNT] = _literal(stored.amount)
        if stored.currency is not None:
            data[_CURRENCY] = _quoted(stored.currency)
    if stored.name == "login":
        data[_LAST_LOG_IN] = str(int(stored.occurred_at.timestamp()))
    return _event(stored, brand, name, stored.identity, data)


def balance(stored: StoredEvent, brand: Brand | None, name: str) -> Item | None:
    """Return the balance that an event tells of, {"EUR": "20.04"}, as an event of its own; None: it tells of none."""
    amount = stored.properties.get("total_balance") or stored.properties.get("real_balance")
    if amount is None or stored.currency is None:
        return None
    member, _ = _member(stored.currency)
    return _event(stored, brand, name, (*stored.identity, PLAYER_BALANCE), {member: _dump(amount)})


def _event(
    stored: StoredEvent, brand: Brand | None, name: str, identity: tuple[str, ...], data: Mapping[str, str]
) -> Item:
    """Return an event of which `data` are the attributes: names (see _member) and values, serialised already."""
    person = _quoted(customer_id(stored.brand_id, stored.external_id, brand))
    occurred_at = stored.occurred_at.timestamp()
    event_id = ulid(int(occurred_at * 1000), identity)
    attributes = ",".join([member + text for member, text in data.items()])
    body = (
        f'{{"type":"person","action":"event","identifiers":{{"id":{person}}},"name":{_quoted(name)},'
        f'"id":"{event_id}","timestamp":{int(occurred_at)},"attributes":{{{attributes}}}}}'
    )
    return Item("event", stored.player_id, body.encode(), name, stored.seq)


def pack(items: Sequence[Item]) -> list[list[Item]]:
    """Cut items into batches of at most BATCH_BYTES, measured before an item is added; order is kept.

    A player's profile and events never share a batch (the API promises no order inside one), so a batch also ends
    where profiles end and events begin. What one stored event became is never parted: it is settled as one.
    """
    batches: list[list[Item]] = []
    size = _ENVELOPE
    for _, group in itertools.groupby(items, key=_WHOLE):
        together = list(group)
        bytes_more = sum([len(item.body) + 1 for item in together])
        if not batches or size + bytes_more > BATCH_BYTES or batches[-1][-1].kind != together[0].kind:
            batches.append([])
            size = _ENVELOPE
        batches[-1] += together
        size += bytes_more
    return batches


def _dump(value: object) -> str:
    """Serialise with decimals as exact number literals, which the json module can't do."""
    return _WRITERS.get(type(value), _JSON.encode)(value)


def _object(members: Mapping[str, object]) -> str:
    writer, rare = _WRITERS.get, _JSON.encode  # as in _dump, without its call for each of 120 attributes
    return (
        "{" + ",".join([f"{_quoted(key)}:{writer(type(value), rare)(value)}" for key, value in members.items()]) + "}"
    )


def _literal(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
#: The module's encoder costs a microsecond a value, which a profile pays 120 times: only what is rare goes through it.
_WRITERS: Final[dict[type, Callable[[Any], str]]] = {str: _quoted, int: str, Decimal: _literal, dict: _object}


def _number(value: object) -> str:
    """Write an amount as a number; what an operator's own column of that name holds may be no amount."""
    text = str(value)
    if _PLAIN.fullmatch(text):  # as nearly all are, in a third of the time
        return text.rstrip("0").rstrip(".") if "." in text else text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return _dump(value)
    return _literal(number) if number.is_finite() else _dump(value)


@functools.lru_cache(maxsize=10_000)
def _member(name: str) -> tuple[str, Callable[[Any], str]]:
    """Return an event's attribute's name as it stands before its value, and what writes that value.

    A name that would redirect mail has another.
    """
    renamed = f"source_{name.lstrip('_')}" if name in _RESERVED or name.startswith("_") else name
    return f"{_quoted(renamed)}:", _number if name in _NUMBERS else _dump
