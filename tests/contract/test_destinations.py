"""What every destination promises (destinations/contract.py), shown on each kind that is listed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from connector.config import Brand, Destination as Settings
from connector.destinations import DESTINATIONS
from connector.destinations.contract import Destination, Item, Previous, Profile, Refusal, StoredEvent
from connector.emulators import serve
from connector.emulators.options import Options
from connector.errors import Halted, Throttled, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOW = datetime.now(UTC)  # noqa: TID251 - an event's time, not the connector's


@pytest.fixture
def api() -> Iterator[serve.Running]:
    """A real server that speaks the API."""
    with serve.start() as running:
        yield running


@pytest.fixture(params=list(DESTINATIONS))
def destination(request: pytest.FixtureRequest, api: serve.Running) -> Iterator[Destination]:
    """One destination of each kind, pointed at the server."""
    made = destination_at(request.param, api.url)
    yield made
    made.close()


def destination_at(kind: str, url: str, **changes: Any) -> Destination:
    settings = {"name": "api", "kind": kind, "url": url, "site_id": "s", "api_key": "k", "timeout": "2s", **changes}
    return DESTINATIONS[kind](
        Settings.model_validate(settings), {"kaasino": Brand(customer_id="kaasino:{user_ext_id}")}
    )


def profile(number: int = 1, **values: Any) -> Profile:
    known = {"email": f"player{number}@example.com", "status": "active", "status_raw": "ACTIVE", "traits": {}, **values}
    return Profile(number, "kaasino", str(number), excluded=False, values=known)


def event(number: int = 1, **changes: Any) -> StoredEvent:
    values: dict[str, Any] = {
        "seq": number,
        "player_id": 1,
        "brand_id": "kaasino",
        "external_id": "1",
        "name": "deposit_confirmed",
        "identity": ("t", "s", "deposits", "0", "kaasino", str(number), "deposit_confirmed"),
        "currency": "EUR",
        "occurred_at": NOW,
        "amount": Decimal("12.50"),
        "transaction_id": str(number),
        "properties": {},
        **changes,
    }
    return StoredEvent(**values)


def _body(items: Sequence[Item]) -> bytes:
    (item,) = items
    return item.body


def test_a_ping_describes_the_other_side(destination: Destination) -> None:
    """A person reads it in `check`."""
    assert destination.ping()


def test_items_are_delivered_and_each_has_an_outcome(destination: Destination, api: serve.Running) -> None:
    """One outcome an item, in order; None is accepted."""
    items = [destination.encode_profile(profile(n), Previous()) for n in (1, 2)]
    assert list(destination.deliver(items)) == [None, None]
    assert list(destination.deliver(destination.encode_event(event()))) == [None]
    assert (api.workspace.counts()["people"], api.workspace.counts()["events"]) == (2, 1)


def test_an_event_delivered_again_is_the_same_event(destination: Destination, api: serve.Running) -> None:
    """Its id depends on nothing but its identity and business time."""
    assert _body(destination.encode_event(event())) == _body(destination.encode_event(event()))
    for _ in range(2):
        destination.deliver(destination.encode_event(event()))
    assert (api.workspace.counts()["events"], api.workspace.counts()["duplicates"]) == (1, 1)


def test_another_row_at_another_time_is_another_event(destination: Destination) -> None:
    """Row key, name, stream and business time all make an identity."""
    later = event(occurred_at=NOW + timedelta(seconds=1))
    assert len({_body(destination.encode_event(item)) for item in (event(1), event(2), later)}) == 3


def test_a_profile_that_did_not_change_has_the_same_digest(destination: Destination) -> None:
    """And one that did has another; names that went are removed by their absence."""
    first = destination.encode_profile(profile(), Previous())
    same = destination.encode_profile(profile(), Previous(first.names, first.digest))
    changed = destination.encode_profile(profile(email=None), Previous(first.names, first.digest))
    assert first.digest == same.digest
    assert changed.digest != first.digest
    assert json.loads(changed.body)["attributes"]["email"] is None


def test_batches_keep_order_and_lose_nothing(destination: Destination) -> None:
    """Players come before events and never share a batch with them."""
    items = [destination.encode_profile(profile(n), Previous()) for n in range(900)]
    items += [item for n in range(900) for item in destination.encode_event(event(n))]
    batches = destination.batches(items)
    assert [item for batch in batches for item in batch] == items
    assert all(len({item.kind for item in batch}) == 1 for batch in batches)


def test_a_refused_item_does_not_cost_its_neighbours(destination: Destination, api: serve.Running) -> None:
    """The API's reason comes back with it."""
    bad = Item("event", 1, b'{"type":"person","action":"event","identifiers":{"id":"1"}}')
    (good,) = destination.encode_event(event())
    outcomes = list(destination.deliver([good, bad]))
    assert outcomes[0] is None
    assert isinstance(outcomes[1], Refusal)
    assert api.workspace.counts()["events"] == 1


@pytest.mark.parametrize(
    ("fault", "raised"), [("503", Throttled), ("429", Throttled), ("reset", Transient), ("reset_before", Transient)]
)
def test_what_says_nothing_of_the_batch_is_transient(
    destination: Destination, api: serve.Running, fault: str, raised: type[Exception]
) -> None:
    """The same items go again, and arrive once."""
    (item,) = destination.encode_event(event())
    api.workspace.faults.script[:] = [fault]
    with pytest.raises(raised):
        destination.deliver([item])
    assert list(destination.deliver([item])) == [None]
    assert api.workspace.counts()["events"] == 1


@pytest.mark.parametrize("kind", list(DESTINATIONS))
def test_refused_credentials_halt(kind: str) -> None:
    """Nothing is retried: a person must answer."""
    with serve.start(Options(site_id="right", api_key="right")) as running:
        wrong = destination_at(kind, running.url)
        with pytest.raises(Halted, match="credentials are refused"):
            wrong.ping()
        wrong.close()
