"""What a page of a view becomes, whatever the view: frames that the store writes in one transaction.

Owns the shapes of what is neither event nor profile. Events are described in connector.event, profiles in
connector.player.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from connector.event import AMOUNT, EVENTS, INSTANT, REJECTIONS, empty
from connector.player import PROFILES

#: A tag or group that a player has, or (`present` false) has no more, since `updated_at`.
LABELS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "kind": pl.String,  # tag or group
    "label": pl.String,
    "present": pl.Boolean,
    "updated_at": INSTANT,
}

#: A rate from `valid_from` on: units of the base currency for one unit of `currency`.
RATES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "base": pl.String,
    "currency": pl.String,
    "valid_from": INSTANT,
    "rate": AMOUNT,
}

#: An operator's own totals of a player at `as_of`, in units of `currency` (null: the base currency); null: not told.
REPORTED: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "as_of": INSTANT,
    "currency": pl.String,
    "deposited": AMOUNT,
    "withdrawn": AMOUNT,
    "wagered": AMOUNT,
    "won": AMOUNT,
    "deposit_count": pl.Int64,
    "withdrawal_count": pl.Int64,
    "bet_count": pl.Int64,
}

#: An account whose person asked to be erased; `mode` is the operator's own word.
ERASURES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "brand_id": pl.String,
    "external_id": pl.String,
    "mode": pl.String,
    "requested_at": INSTANT,
}

#: Of each once: a page brings one or two of these, and no frame is ever changed.
_NO_EVENTS, _NO_PROFILES, _NO_REJECTIONS = empty(EVENTS), empty(PROFILES), empty(REJECTIONS)
_NO_LABELS, _NO_RATES, _NO_REPORTED, _NO_ERASURES = empty(LABELS), empty(RATES), empty(REPORTED), empty(ERASURES)


@dataclass(frozen=True)
class Normalised:
    """What one page became, and the rows that could not. Any frame may be empty.

    `shape`: the names of what the events' packed values are, None where all have objects (see connector.event.packed).
    """

    events: pl.DataFrame = field(default_factory=lambda: _NO_EVENTS)
    shape: tuple[str, ...] | None = None
    profiles: pl.DataFrame = field(default_factory=lambda: _NO_PROFILES)
    rejections: pl.DataFrame = field(default_factory=lambda: _NO_REJECTIONS)
    labels: pl.DataFrame = field(default_factory=lambda: _NO_LABELS)
    rates: pl.DataFrame = field(default_factory=lambda: _NO_RATES)
    reported: pl.DataFrame = field(default_factory=lambda: _NO_REPORTED)
    erasures: pl.DataFrame = field(default_factory=lambda: _NO_ERASURES)

    @property
    def understood(self) -> int:
        """Return how many things the page said."""
        facts = (self.labels, self.rates, self.reported, self.erasures)
        return sum(frame.height for frame in (self.events, self.profiles, *facts))
