"""Conditions of segments over plain rows, written apart from the compiler; players and conditions at random."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from connector.event import NAMES

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    import psycopg

TENANT: Final = "kaasino"
ZONE: Final = "Europe/Madrid"
TODAY: Final = date(2026, 3, 30)
EVENTS: Final = ("bet_settled", "deposit_confirmed", "login")
#: Texts that mean something to SQL, to LIKE, to the driver or to JSON, beside plain ones.
TEXTS: Final = ("active", "Active", "gold", "%", "_", "a%b", "a_b", "axb", "\\", "'", '"; drop table x; --', "%s", "é")
MAILS: Final = ("ana@example.com", "ANA@example.com", "bo%b@example.com", "bo_b@example.com")
PHONES: Final = ("+34600000001", "+34600000002", "+49170000000")
LABELS: Final = ("vip", "pre-vip", "VIP", "a,b", '"', "%")
NUMBERS: Final = (-1, 0, 1, 2, 5, 100, 250, 2.5, 10**12)
ODD_NUMBERS: Final = ("2", "2.5", "-1", "1e3", " 2", "2 ", "two", "", "0x2", "9" * 40, "NaN", "100", "2\n")
DAYS: Final = (1, 2, 7, 365)
_TEXT_COLUMNS: Final = (
    *("telegram_id", "status", "kyc_status", "default_currency_code", "country", "language", "brand_id", "external_id"),
)
_NUMBER_COLUMNS: Final = (
    *("total_deposited", "total_withdrawn", "total_wagered", "total_won", "ggr", "bet_count", "session_count"),
    *("deposit_count", "withdrawal_count"),
)
_TIME_COLUMNS: Final = (
    *("first_seen_at", "last_seen_at", "last_bet_at", "last_deposit_at", "created_at", "date_of_birth"),
)
_VERTICAL: Final = ("wagered", "won", "ggr", "bet_count")
_EQUAL, _ORDER, _SETS, _PARTS = ("=", "!="), (">", ">=", "<", "<="), ("in", "not_in"), ("contains", "starts_with")


# Players ------------------------------------------------------------------------------------------------------------


def populate(connection: psycopg.Connection[Any], dice: random.Random, count: int) -> None:
    """Write players with everything that may be there or not, their contacts and their days."""
    for number in range(count):
        row = _player(dice, number)
        names = ", ".join(row)
        holders = ", ".join(f"%({name})s" for name in row)
        (player_id,) = connection.execute(
            f"insert into crm.players ({names}) values ({holders}) returning player_id".encode(), row
        ).fetchone() or (0,)
        _contact(connection, dice, player_id)
        _days(connection, dice, player_id)


def _player(dice: random.Random, number: int) -> dict[str, Any]:
    midnights = [datetime(2026, 3, day, hour, tzinfo=UTC) for day in (23, 28, 29, 30) for hour in (0, 22, 23)]
    times = [None, *midnights, *(at - timedelta(microseconds=1) for at in midnights)]
    row: dict[str, Any] = {
        "tenant": TENANT,
        "brand_id": dice.choice(TEXTS),
        "external_id": f"{dice.choice(TEXTS)}{number}",
    }
    row |= {name: dice.choice((None, *TEXTS)) for name in _TEXT_COLUMNS[:-2]}
    row["status"] = dice.choice(TEXTS)
    row |= {name: dice.choice((0, 0, 1, 5, 100, 250, 10**12)) for name in _NUMBER_COLUMNS if name != "ggr"}
    row |= {name: dice.choice((0, 0, 1, 5)) for name in ("sport_wagered", "sport_won", "sport_bet_count")}
    row |= {name: dice.choice(times) for name in (*_TIME_COLUMNS, "last_casino_bet_at", "last_sport_bet_at")}
    row |= {name: dice.random() < 0.5 for name in ("rg_self_excluded", "marketable")}
    for name in ("tags", "groups"):
        told = None if dice.random() < 0.3 else dice.sample(LABELS, dice.randrange(3))
        row[name] = None if told is None else json.dumps(told)
    traits = {name: dice.choice(ODD_NUMBERS) for name in ("kyc_level", "churn_score", "ltv_predicted")}
    traits |= {name: dice.choice(TEXTS) for name in ("timezone", "tier_code", "current_tier_code")}
    row["traits"] = json.dumps({name: said for name, said in traits.items() if dice.random() < 0.6})
    row["consents"] = json.dumps(
        {kind: {"granted": dice.random() < 0.5} for kind in ("email", "sms", "push", "phone") if dice.random() < 0.6}
    )
    row["erased_at"] = datetime(2026, 1, 1, tzinfo=UTC) if dice.random() < 0.05 else None
    return row


def _contact(connection: psycopg.Connection[Any], dice: random.Random, player_id: int) -> None:
    if dice.random() < 0.3:
        return
    email, phone = dice.choice((None, *MAILS)), dice.choice((None, *PHONES))
    connection.execute(
        "insert into crm.player_contacts (player_id, tenant, email, phone, email_match, phone_match)"
        " values (%s, %s, %s, %s, lower(%s), %s)",
        (player_id, TENANT, email, phone, email, phone),
    )


def _days(connection: psycopg.Connection[Any], dice: random.Random, player_id: int) -> None:
    for name in EVENTS:
        for ago in dice.sample((-1, 0, 1, 2, 6, 7, 100, 364, 365), dice.choice((0, 0, 1, 3))):
            day = TODAY - timedelta(days=ago)
            amounts = [dice.choice((0, 1, 5, 100, 250)) for _ in range(dice.randrange(3))]
            last = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) if amounts else None
            least, greatest = (min(amounts), max(amounts)) if amounts else (None, None)
            told = (TENANT, player_id, day, NAMES.index(name) + 1, max(len(amounts), 1), sum(amounts), least, greatest)
            connection.execute(
                "insert into crm.player_days values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (*told, last, amounts[-1] if amounts else None),
            )


# Conditions ---------------------------------------------------------------------------------------------------------


def conditions() -> list[dict[str, Any]]:
    """Return every field with every operator and value, and every event with every aggregation."""
    return [*_traits(), *_events()]


def definitions() -> st.SearchStrategy[dict[str, Any]]:
    """Give whole definitions of up to some dozen conditions, four groups deep."""
    return _groups(st.recursive(st.sampled_from(conditions()), _groups, max_leaves=8))


def _groups(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR"]), "conditions": st.lists(inner, min_size=1, max_size=4)}
    )


def _traits() -> Iterator[dict[str, Any]]:
    at = ("2026-03-29T22:00:00Z", "2026-03-28", "2026-03-30T00:00:00+02:00", *map(_rolling, DAYS))
    verticals = [f"vertical_activity.{kind}.{name}" for kind in ("casino", "sportsbook") for name in _VERTICAL]
    numbers = (*_NUMBER_COLUMNS, "kyc_level", "churn_score", "ltv_predicted", *verticals)
    times = (*_TIME_COLUMNS, *(f"vertical_activity.{kind}.last_bet_at" for kind in ("casino", "sportsbook")))
    flags = ("rg_self_excluded", "marketable", *(f"consents.{kind}" for kind in ("email", "sms", "push", "phone")))
    yield from _each((*_TEXT_COLUMNS, "current_tier_code", "timezone"), (*_EQUAL, *_PARTS, *_SETS), TEXTS)
    yield from _each(numbers, (*_EQUAL, *_ORDER, *_SETS), NUMBERS)
    yield from _each(times, (*_EQUAL, *_ORDER, *_SETS), at)
    yield from _each(flags, _EQUAL, (True, False))
    yield from _each(("tags", "groups"), ("contains", *_SETS), LABELS)
    yield from _each(("email",), (*_EQUAL, *_PARTS, *_SETS), (*MAILS, "@", "BO", "%"))
    yield from _each(("phone",), (*_EQUAL, *_PARTS, *_SETS), (*PHONES, "+34", "1"))


def _each(names: Sequence[str], ops: Sequence[str], values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield conditions; a set is of a value and the one two places on."""
    for name in names:
        yield {"type": "trait", "field": name, "op": "exists"}
        for op in ops:
            for value in _operands(op, values):
                yield {"type": "trait", "field": name, "op": op, "value": value}


def _events() -> Iterator[dict[str, Any]]:
    for name, days in itertools.product(EVENTS, DAYS):
        for aggregation, op in itertools.product(("count", "sum", "min", "max", "last"), (*_EQUAL, *_ORDER, *_SETS)):
            for value in _operands(op, (0, 1, 2, 5, 100, 2.5)):
                said = {"type": "event", "event": name, "window": _rolling(days), "aggregation": aggregation}
                yield {**said, "op": op, "value": value}


def _operands(op: str, values: Sequence[Any]) -> Sequence[Any]:
    pairs = [[value, values[(index + 2) % len(values)]] for index, value in enumerate(values)]
    return pairs if op in _SETS else values


def _rolling(days: int) -> dict[str, Any]:
    return {"kind": "rolling", "days": days}


# What they mean -----------------------------------------------------------------------------------------------------


def matches(node: dict[str, Any], player: dict[str, Any]) -> bool:
    """Return whether a player, with `contact` and `days` beside the columns, is what a definition says."""
    if "operator" in node:
        told = [matches(inner, player) for inner in node["conditions"]]
        return all(told) if node["operator"] == "AND" else any(told)
    if node["type"] == "event":
        return _did(node, player["days"])
    return _is(node, player)


def _did(node: dict[str, Any], days: Sequence[dict[str, Any]]) -> bool:
    since = TODAY - timedelta(days=node["window"]["days"] - 1)
    seen = [d for d in days if NAMES[d["name_id"] - 1] == node["event"] and since <= d["day"] <= TODAY]
    paid = sorted((d for d in seen if d["last_at"]), key=lambda d: d["last_at"])
    found: Any
    match node["aggregation"]:
        case "count":
            found = sum(d["events"] for d in seen)
        case "sum":
            found = sum(d["total"] for d in seen)
        case "min":
            found = min((d["least"] for d in paid), default=None)
        case "max":
            found = max((d["greatest"] for d in paid), default=None)
        case _:
            found = paid[-1]["last_amount"] if paid else None
    return found is not None and _compare(found, node["op"], _value(node["value"]))


def _is(node: dict[str, Any], player: dict[str, Any]) -> bool:
    name, op = node["field"], node["op"]
    if op == "exists" and name.startswith("vertical_activity."):
        return name.split(".")[1] in player["vertical_activity"]
    found = _found(name, player)
    value = _value(node.get("value"), lower=name in {"email", "phone"})
    if name in {"tags", "groups"}:
        has = set(found or [])
        listed = {value} if op == "contains" else set(value or ())
        return bool(has) if op == "exists" else not has & listed if op == "not_in" else bool(has & listed)
    if found is None:
        return op in {"!=", "not_in"}
    return op == "exists" or _compare(found, op, value)


def _found(name: str, player: dict[str, Any]) -> Any:
    if name in {"email", "phone"}:
        said = (player["contact"] or {}).get(name)
        return said if said is None else said.lower()
    if name.startswith("consents."):
        return player["consents"].get(name.removeprefix("consents."), {}).get("granted")
    if name.startswith("vertical_activity."):
        _, vertical, what = name.split(".")
        found = player["vertical_activity"].get(vertical, {})
        if what == "last_bet_at":
            return player["last_casino_bet_at" if vertical == "casino" else "last_sport_bet_at"]
        return found.get(what, 0)
    if name in {"kyc_level", "churn_score", "ltv_predicted"}:
        text = player["traits"].get(name, "")
        return Decimal(text) if re.fullmatch(r"[+-]?\d{1,30}(\.\d{1,30})?", text, re.ASCII) else None
    if name == "current_tier_code":
        return player["traits"].get(name, player["traits"].get("tier_code"))
    return player["traits"].get(name) if name == "timezone" else player[name]


def _value(value: Any, *, lower: bool = False) -> Any:
    if isinstance(value, list):
        return [_value(item, lower=lower) for item in value]
    if isinstance(value, dict):
        day = TODAY - timedelta(days=value["days"] - 1)
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        at = datetime.fromisoformat(value)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return value.lower() if lower and isinstance(value, str) else value


def _compare(found: Any, op: str, value: Any) -> bool:
    return {
        "=": lambda: found == value,
        "!=": lambda: found != value,
        ">": lambda: found > value,
        ">=": lambda: found >= value,
        "<": lambda: found < value,
        "<=": lambda: found <= value,
        "in": lambda: found in value,
        "not_in": lambda: found not in value,
        "contains": lambda: value in found,
        "starts_with": lambda: found.startswith(value),
    }[op]()
