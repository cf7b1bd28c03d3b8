"""Batches by bytes, and what each answer of the API means for every item in them."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from connector.config import Destination
from connector.destinations.contract import Item, Refusal
from connector.destinations.customerio_items import BATCH_BYTES, ITEM_BYTES, pack
from connector.destinations.customerio_track import CustomerIOTrack
from connector.errors import Halted, Throttled, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXAMPLES: Final = settings(max_examples=60, deadline=None)


def item(number: int, size: int = 60, kind: str = "event") -> Item:
    head = f'{{"n":{number},"x":"'
    return Item(kind, number, (head + "x" * max(0, size - len(head) - 2) + '"}').encode(), seq=number)


def serialised(batch: Sequence[Item]) -> bytes:
    return b'{"batch":[' + b",".join(one.body for one in batch) + b"]}"


sizes = (
    st.integers(20, 500)
    | st.integers(20_000, ITEM_BYTES)
    | st.sampled_from([BATCH_BYTES // 2, BATCH_BYTES - 13, BATCH_BYTES, 2 * BATCH_BYTES])
)


@EXAMPLES
@given(st.lists(st.tuples(sizes, st.sampled_from(["profile", "event", "event"])), max_size=60))
def test_batches_hold_every_item_in_order_within_the_limit(described: list[tuple[int, str]]) -> None:
    """Nothing is lost or moved, no batch is too large as serialised, and profiles never share one with events."""
    items = [item(number, size, kind) for number, (size, kind) in enumerate(described)]
    batches = pack(items)
    assert [one for batch in batches for one in batch] == items
    assert all(batches)
    for batch in batches:
        assert len(serialised(batch)) <= BATCH_BYTES or len(batch) == 1
        assert len({one.kind for one in batch}) == 1
    for first, second in itertools.pairwise(batches):  # no batch ends early
        assert first[0].kind != second[0].kind or len(serialised([*first, second[0]])) > BATCH_BYTES - 2


class Api:
    """A destination over a transport that answers from a function and keeps what it was sent."""

    def __init__(self, answer: Any, **changes: Any) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer
        base = {"name": "customerio", "kind": "customerio_track", "site_id": "site", "api_key": "key", "rate": 1e9}
        self.destination = CustomerIOTrack(
            Destination(**(base | changes)), {}, transport=httpx.MockTransport(self._handle)
        )

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request) if callable(self._answer) else self._answer

    @property
    def batches(self) -> list[list[int]]:
        return [[one["n"] for one in json.loads(request.content)["batch"]] for request in self.requests]


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    """Yield a builder of destinations; all are closed."""
    made: list[Api] = []

    def make(answer: Any, **changes: Any) -> Api:
        made.append(Api(answer, **changes))
        return made[-1]

    yield make
    for one in made:
        one.destination.close()
        one.destination.close()


def refused_by(*numbers: int, status: int = 400) -> Callable[[httpx.Request], httpx.Response]:
    """Refuse a whole request while one of these items is in it."""

    def answer(request: httpx.Request) -> httpx.Response:
        held = {one["n"] for one in json.loads(request.content)["batch"]}
        if held & set(numbers):
            return httpx.Response(
                status, json={"errors": [{"reason": "invalid", "field": "attributes", "message": "no"}]}
            )
        return httpx.Response(200, json={})

    return answer


ERRORS: Final = {"errors": [{"batch_index": 1, "reason": "required", "field": "name", "message": "name is required"}]}
REFUSAL: Final = Refusal("required", "name", "name is required")


@pytest.mark.parametrize(
    ("response", "outcomes"),
    [
        (httpx.Response(200, content=b"{}\n"), [None, None, None]),
        (httpx.Response(200, content=b""), [None, None, None]),
        (httpx.Response(200, json={"errors": []}), [None, None, None]),
        (httpx.Response(200, json={"errors": None, "later": 1}), [None, None, None]),
        (httpx.Response(200, content=b"<html>"), [None, None, None]),
        (httpx.Response(207, json=ERRORS), [None, REFUSAL, None]),
        (httpx.Response(200, json=ERRORS), [None, REFUSAL, None]),
        (httpx.Response(207, json=json.dumps(ERRORS)), [None, REFUSAL, None]),
        (httpx.Response(207, json={"errors": [{"batch_index": 0}]}), [Refusal("refused"), None, None]),
        (httpx.Response(207, json={"errors": [{"reason": "invalid"}]}), [Refusal("invalid")] * 3),
        (httpx.Response(207, json={"errors": [{"batch_index": 3, "reason": "invalid"}]}), [Refusal("invalid")] * 3),
        (
            httpx.Response(207, json={"errors": [*ERRORS["errors"], {"reason": "invalid"}]}),
            [Refusal("invalid"), REFUSAL, Refusal("invalid")],
        ),
    ],
)
def test_an_accepted_batch_names_what_it_refuses(
    response: httpx.Response, outcomes: list[Refusal | None], api: Callable[..., Api]
) -> None:
    """200 and 207 alike: errors by batch_index, everything else accepted; an error of no item is of all."""
    assert list(api(response).destination.deliver([item(n) for n in range(3)])) == outcomes


def test_a_batch_is_one_post_with_credentials(api: Callable[..., Api]) -> None:
    """The v2 path of the configured host, basic auth, the items' bytes as they are."""
    one = api(httpx.Response(200), url="http://127.0.0.1:8651/")
    batch = [item(1), item(2)]
    one.destination.deliver(batch)
    (request,) = one.requests
    assert (request.method, str(request.url)) == ("POST", "http://127.0.0.1:8651/api/v2/batch")
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["content-type"] == "application/json"
    assert request.content == serialised(batch)


@pytest.mark.parametrize(("region", "host"), [("eu", "track-eu.customer.io"), ("us", "track.customer.io")])
def test_a_region_is_a_host(region: str, host: str, api: Callable[..., Api]) -> None:
    """Data of an EU workspace goes to the EU host alone."""
    one = api(httpx.Response(200), region=region)
    one.destination.deliver([item(1)])
    assert one.requests[0].url.host == host


def test_nothing_to_deliver_is_no_request(api: Callable[..., Api]) -> None:
    """An empty batch costs nothing."""
    one = api(httpx.Response(200))
    assert list(one.destination.deliver([])) == []
    assert one.requests == []


@pytest.mark.parametrize("status", [400, 413, 422])
@EXAMPLES
@given(size=st.integers(1, 20), data=st.data())
def test_a_refused_whole_is_halved_until_the_culprits_stand_alone(status: int, size: int, data: st.DataObject) -> None:
    """The culprits are refused with the API's words, every other item is accepted, each exactly once and in order."""
    culprits = data.draw(st.sets(st.integers(0, size - 1), max_size=3))
    one = Api(refused_by(*culprits, status=status))
    outcomes = one.destination.deliver([item(n) for n in range(size)])
    one.destination.close()
    assert list(outcomes) == [Refusal("invalid", "attributes", "no") if n in culprits else None for n in range(size)]
    accepted = [n for batch in one.batches if not set(batch) & culprits for n in batch]
    assert accepted == [n for n in range(size) if n not in culprits]


def test_a_refused_item_without_words_has_the_status(api: Callable[..., Api]) -> None:
    """A reason is always there."""
    assert list(api(httpx.Response(413, content=b"too big")).destination.deliver([item(1)])) == [Refusal("HTTP 413")]


def test_an_item_too_large_is_refused_without_being_sent(api: Callable[..., Api]) -> None:
    """Others of its batch go out as if it were not there; exactly the limit still fits."""
    one = api(lambda _: httpx.Response(207, json=ERRORS))
    outcomes = one.destination.deliver([item(0, ITEM_BYTES), item(1, ITEM_BYTES + 1), item(2)])
    assert one.batches == [[0, 2]]
    assert (outcomes[0], outcomes[1].reason, outcomes[2]) == (None, "too_large", REFUSAL)
    alone = api(httpx.Response(200))
    assert alone.destination.deliver([item(1, 2 * BATCH_BYTES)])[0] is not None
    assert alone.requests == []


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (429, {"retry-after": "17"}, 17),
        (429, {"retry-after": "0.5"}, 0.5),
        (429, {}, 0),
        (429, {"retry-after": "-3"}, 0),
        (503, {"retry-after": "2"}, 2),
        (500, {}, 0),
        (502, {}, 0),
    ],
)
def test_an_overloaded_api_is_asked_again_later(
    status: int, headers: dict[str, str], after: float, api: Callable[..., Api]
) -> None:
    """429 and 5xx say nothing about the items: the whole batch again, not before Retry-After; one try each time."""
    one = api(httpx.Response(status, headers=headers))
    with pytest.raises(Throttled) as caught:
        one.destination.deliver([item(1), item(2)])
    assert caught.value.after == after
    assert one.batches == [[1, 2]]


@pytest.mark.parametrize("value", ["soon", "", "nan", "Wed, 01 Jul 2026 10:00:00 GMT"])
def test_a_retry_after_that_is_no_number_is_ignored(value: str, api: Callable[..., Api]) -> None:
    """The loop's own back-off decides then."""
    with pytest.raises(Throttled) as caught:
        api(httpx.Response(429, headers={"retry-after": value})).destination.deliver([item(1)])
    assert caught.value.after == 0


@pytest.mark.parametrize("value", ["inf", "1e300", "99999999999"])
def test_a_retry_after_without_end_does_not_end_the_lane(value: str, api: Callable[..., Api]) -> None:
    """A proxy's nonsense is a wait that a thread can do."""
    with pytest.raises(Throttled) as caught:
        api(httpx.Response(429, headers={"retry-after": value})).destination.deliver([item(1)])
    assert 0 <= caught.value.after <= 86_400


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ReadTimeout, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError]
)
def test_a_lost_reply_says_nothing_about_the_batch(error: type[httpx.TransportError], api: Callable[..., Api]) -> None:
    """Time-outs and cut connections are transient, the cause chained, no credential in the message."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise error("lost", request=request)

    with pytest.raises(Transient) as caught:
        api(fail).destination.deliver([item(1)])
    assert isinstance(caught.value.__cause__, error)
    assert "key" not in str(caught.value)


def test_a_garbled_reply_says_nothing_about_the_batch(api: Callable[..., Api]) -> None:
    """A reply that can't be decompressed is a lost one."""

    def garbled(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip at all"))

    with pytest.raises(Transient):
        api(garbled).destination.deliver([item(1)])


@pytest.mark.parametrize("status", [401, 403, 404, 301, 302, 307, 308])
def test_credentials_addresses_and_redirects_stop_the_destination(status: int, api: Callable[..., Api]) -> None:
    """A person must answer; a redirect is never followed, so nothing goes to another host."""
    one = api(httpx.Response(status, headers={"location": "https://track.customer.io/api/v2/batch"}))
    with pytest.raises(Halted) as caught:
        one.destination.deliver([item(1)])
    assert caught.value.hint
    assert len(one.requests) == 1


@pytest.mark.parametrize("status", [409, 418, 204])
def test_an_answer_that_nobody_expects_is_tried_again(status: int, api: Callable[..., Api]) -> None:
    """What is not understood is neither delivered nor refused."""
    with pytest.raises(Transient, match=str(status)):
        api(httpx.Response(status)).destination.deliver([item(1)])


def test_the_rate_falls_when_the_api_objects(api: Callable[..., Api]) -> None:
    """429 halves the shared rate, an accepted batch gives a little back."""
    one = api(httpx.Response(429))
    with pytest.raises(Throttled):
        one.destination.deliver([item(1)])
    assert one.destination._throttle.rate == 5e8


@pytest.mark.parametrize(
    ("told", "changes", "halted"),
    [
        ({"region": "eu", "environment_id": 142595}, {}, None),
        ({"region": "eu", "environment_id": 142595}, {"workspace_id": 142595}, None),
        ({"region": "us", "environment_id": 142595}, {}, "region us"),
        ({"environment_id": 142595}, {}, "region"),
        ({"region": "eu", "environment_id": 142595}, {"workspace_id": 9}, "workspace 142595, not 9"),
    ],
)
def test_a_ping_tells_the_workspace_or_what_is_wrong(
    told: dict[str, Any], changes: dict[str, Any], halted: str | None, api: Callable[..., Api]
) -> None:
    """The region endpoint, compared with region and workspace of the configuration."""
    one = api(httpx.Response(200, json=told), **changes)
    if halted is None:
        assert one.destination.ping() == "workspace 142595, region eu"
    else:
        with pytest.raises(Halted, match=halted):
            one.destination.ping()
    assert (one.requests[0].method, one.requests[0].url.path) == ("GET", "/api/v1/accounts/region")


@pytest.mark.parametrize(
    ("status", "error"), [(401, Halted), (301, Halted), (400, Transient), (503, Throttled), (404, Transient)]
)
def test_a_ping_fails_like_a_delivery(status: int, error: type[Exception], api: Callable[..., Api]) -> None:
    """Wrong credentials stop, an API that is down is asked again."""
    with pytest.raises(error):
        api(httpx.Response(status, headers={"location": "https://track.customer.io/"})).destination.ping()
