"""What every destination is: something that encodes players and events to items and delivers them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from connector.payments import Payments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal


#: Long ago.
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Profile:
    """A player as the store sees it now: its columns of crm.players, JSON columns decoded, and its payments."""

    player_id: int
    brand_id: str
    external_id: str
    excluded: bool
    values: Mapping[str, Any]
    payments: Payments = field(default_factory=Payments)
    #: Decimal places of the base currency, in whose subunits the totals are.
    places: int = 2
    #: When this was so.
    at: datetime = _EPOCH
    #: Names of the segments that the player is in, of those that the destination is told of.
    segments: frozenset[str] = frozenset()


class StoredEvent(NamedTuple):
    """An event as the store keeps it, with what its identity is made of."""

    seq: int
    player_id: int
    brand_id: str
    external_id: str
    identity: tuple[str, ...]
    name: str
    occurred_at: datetime
    amount: Decimal | None
    currency: str | None
    transaction_id: str
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Previous:
    """What the destination last accepted of a profile. `unsubscribed_by_us`: an exclusion of ours set it."""

    names: frozenset[str] = frozenset()
    digest: bytes | None = None
    unsubscribed_by_us: bool = False


class Item(NamedTuple):
    """One thing to deliver, serialised, with what settling needs to know. `digest` and `names`: profiles only."""

    kind: Literal["profile", "event"]
    player_id: int
    body: bytes
    name: str = ""
    seq: int | None = None
    digest: bytes | None = None
    names: frozenset[str] = frozenset()
    unsubscribed: bool = False
    #: The person's id, and the manual segments that it is added to and taken out of once the profile is accepted.
    person: str = ""
    joins: frozenset[int] = frozenset()
    leaves: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Refusal:
    """Why an item will never be accepted, in the API's words."""

    reason: str
    field: str = ""
    message: str = ""


class Destination(Protocol):
    """One API. Used by several threads at once (one per lane), each delivering other players' items.

    `deliver` is at least once: the same item may be delivered again after a failure, under the same event id.
    """

    name: str

    def encode_profile(self, profile: Profile, previous: Previous) -> Item:
        """Return the whole profile as one item, names that went before and are absent now removed."""

    def encode_erasure(self, profile: Profile) -> Item:
        """Return what makes the API forget a person for good; of its columns only brand and id are left."""

    def encode_event(self, event: StoredEvent) -> Sequence[Item]:
        """Return what an event becomes: nothing where its name is not wanted, one item, or several that go together.

        Their ids depend on nothing but the event's identity and business time.
        """

    def batches(self, items: Sequence[Item]) -> Sequence[Sequence[Item]]:
        """Cut items, in order, into deliverable batches. An item too large for any stands alone."""

    def deliver(self, batch: Sequence[Item], *, urgent: bool = False) -> Sequence[Refusal | None]:
        """Deliver one batch: per item None (accepted) or why it was refused for good.

        Raises Transient or Throttled (nothing is known of the batch: deliver it again), Halted (credentials, region).
        """

    def ping(self) -> str:
        """Check credentials and region and describe the other side in a few words; errors as `deliver`."""

    def close(self) -> None:
        """Close connections; idempotent."""
