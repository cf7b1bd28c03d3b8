"""Every knob of the emulator: `Options` say what the workspace means, `Faults` how its answers go wrong.

Both may be changed while it runs, by `change`; this module does not act on any of them.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Options:
    """The workspace's own settings, and the choices where the live API is not documented."""

    #: `eu` or `us`; what `/api/v1/accounts/region` answers.
    region: str = field(default="eu", metadata={"choices": ("eu", "us")})
    #: The workspace's number, `environment_id` in the region answer.
    workspace_id: int = field(default=100001, metadata={"min": 1})
    #: Track credentials; both None: any non-empty pair is accepted.
    site_id: str | None = None
    api_key: str | None = None
    #: App API key; None: any non-empty bearer is accepted.
    app_key: str | None = None
    #: People are identified by `id` alone; email and phone are plain attributes.
    id_only: bool = False
    #: An email that is set may be changed by addressing the person with `id`.
    email_change_by_id: bool = True
    #: Seconds between the 200 and the effect of a write.
    visibility_delay: float = field(default=0.0, metadata={"min": 0})
    #: Seconds for which a repeated event id is ignored; None: for ever.
    dedup_window: float | None = field(default=None, metadata={"min": 0})
    #: What happens to an event id that is no ULID: `accept` (without dedup) or `reject`.
    malformed_event_id: str = field(default="accept", metadata={"choices": ("accept", "reject")})
    #: An identify dated before the person's last edit is skipped.
    skip_stale_identify: bool = True
    #: An empty string removes a person's attribute, as it does an object's.
    empty_string_removes: bool = False
    #: Items of one batch are applied in random order: the live API promises none.
    shuffle_batches: bool = False
    #: Status of a batch that was accepted in part.
    partial_status: int = field(default=207, metadata={"choices": (200, 207)})
    #: Partial errors name the item by its `batch_index`.
    batch_index: bool = True
    #: Status of an item or batch that is too large.
    oversize_status: int = field(default=400, metadata={"choices": (400, 413)})
    max_item_bytes: int = field(default=32_768, metadata={"min": 1})
    max_batch_bytes: int = field(default=512_000, metadata={"min": 1})
    #: Activities kept for one person, and for the workspace's own listing.
    activities_per_person: int = field(default=100, metadata={"min": 1})
    activities_kept: int = field(default=10_000, metadata={"min": 1})
    #: Accepted events kept for the control listing; None: all. Dedup and counters never forget.
    forget_events: int | None = field(default=None, metadata={"min": 1})


@dataclass(kw_only=True, slots=True)
class Faults:
    """What goes wrong on the wire. `targets` says for which API; the rate limits stand apart from it."""

    targets: list[str] = field(default_factory=lambda: ["track"], metadata={"choices": ("track", "app")})
    #: Track requests a second before 429; None: no limit.
    rate: float | None = field(default=None, metadata={"above": 0})
    #: Seconds in the `Retry-After` of a Track 429; None: no such header.
    retry_after: float | None = field(default=1.0, metadata={"min": 0})
    #: App API requests a second before 429; None: no limit.
    app_rate: float | None = field(default=10.0, metadata={"above": 0})
    #: Share of requests answered with one of `error_statuses`.
    error_rate: float = field(default=0.0, metadata={"min": 0, "max": 1})
    error_statuses: list[int] = field(default_factory=lambda: [500, 502, 503], metadata={"min": 400, "max": 599})
    #: Those errors come after the request was applied, not instead.
    error_applies: bool = False
    #: Share of requests whose connection is reset after they were applied.
    reset_rate: float = field(default=0.0, metadata={"min": 0, "max": 1})
    #: Seconds between applying a request and answering, and the share of requests held so long.
    slow: float = field(default=0.0, metadata={"min": 0})
    slow_rate: float = field(default=1.0, metadata={"min": 0, "max": 1})
    #: Answer every request with this redirect, as the other region's host does.
    redirect_status: int | None = field(default=None, metadata={"choices": (301, 302, 307, 308)})
    redirect_to: str = "https://track-eu.customer.io"
    #: Outcomes of the next requests, one each, first first: a status, `ok`, `slow`, `reset`, `reset_before`.
    script: list[str] = field(default_factory=list, metadata={"pattern": r"ok|slow|reset|reset_before|[2-5]\d\d"})
    #: Items refused as invalid: events of these names, people of these ids.
    refuse_names: list[str] = field(default_factory=list)
    refuse_ids: list[str] = field(default_factory=list)


def change(settings: DataclassInstance, changes: Json) -> None:
    """Set the named fields, all or none. Raise `ValueError` naming every field that is unknown or does not fit."""
    hints = get_type_hints(type(settings))
    fields = {entry.name: entry for entry in dataclasses.fields(settings)}
    problems = [f"unknown setting {name}" for name in changes if name not in fields]
    problems += [
        f"{name} must be {_spoken(hints[name], dict(fields[name].metadata))}"
        for name, value in changes.items()
        if name in fields and not (_fits(value, hints[name]) and _within(value, dict(fields[name].metadata)))
    ]
    if problems:
        raise ValueError("; ".join(problems))
    for name, value in changes.items():
        setattr(settings, name, value)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) in (UnionType, Union):
        return any(_fits(value, member) for member in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(entry, get_args(hint)[0]) for entry in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _within(value: object, limits: Json) -> bool:
    if isinstance(value, list):
        return all(_within(entry, limits) for entry in value)
    if value is None:
        return True
    if "choices" in limits:
        return value in limits["choices"]
    if "pattern" in limits:
        return re.fullmatch(limits["pattern"], str(value)) is not None
    if isinstance(value, int | float):
        low, high = limits.get("min", float("-inf")), limits.get("max", float("inf"))
        return bool(low <= value <= high and value > limits.get("above", float("-inf")))
    return True


def _spoken(hint: Any, limits: Json) -> str:
    members = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    names = ("null" if member is NoneType else getattr(member, "__name__", str(member)) for member in members)
    words = " or ".join(names)
    if "choices" in limits:
        return f"one of {', '.join(str(choice) for choice in limits['choices'])}"
    if "pattern" in limits:
        return f"made of {limits['pattern']}"
    bounds = [f"{name} {limit}" for name, limit in limits.items() if name in ("min", "max", "above")]
    return f"{words} ({', '.join(bounds)})" if bounds else words
