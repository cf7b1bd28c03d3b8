"""Customer.io Track v2 `POST /api/v2/batch`, and whatever speaks it: delivers batches, reads per-item outcomes.

Facts: 200 and 207 may both carry `errors[]` by `batch_index`, everything else was accepted; per-item errors are
permanent; 429, 5xx and a lost reply say nothing about the batch; 401, 403 and redirects are configuration.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import httpx

from connector import __version__, clock
from connector.destinations import customerio_items as items
from connector.destinations.contract import Item, Previous, Profile, Refusal, StoredEvent
from connector.destinations.throttle import Throttle
from connector.errors import Halted, Throttled, Transient
from connector.event import PLAYER_BALANCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.config import Brand, Destination as Settings

_TOO_LARGE: Final = Refusal("too_large", "", f"an item may have {items.ITEM_BYTES} bytes")
#: An API that asks for more is asked again all the same: nothing is lost by it.
_RETRY_AFTER_MOST: Final = 300.0
#: A refusal of the whole request that a smaller one may not meet.
_SPLIT: Final = frozenset({400, 413, 422})


class CustomerIOTrack:
    """See destinations.contract.Destination."""

    def __init__(
        self, settings: Settings, brands: Mapping[str, Brand], *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._brands = brands
        self._throttle = Throttle(settings.rate, clock=clock.monotonic, sleep=clock.sleep)
        self._client = httpx.Client(
            base_url=settings.base_url,
            auth=(settings.site_id.get_secret_value(), settings.api_key.get_secret_value()),
            timeout=settings.timeout,
            headers={"user-agent": f"casino-crm-connector/{__version__}", "content-type": "application/json"},
            follow_redirects=False,  # a redirect would carry credentials and personal data to another region
            limits=httpx.Limits(max_connections=settings.lanes + 2),
            transport=transport,
        )

    def encode_profile(self, profile: Profile, previous: Previous) -> Item:
        """See Destination."""
        brand, settings = self._brands.get(profile.brand_id), self._settings
        return items.identify(profile, brand, previous, settings.attributes, settings.segments)

    def encode_erasure(self, profile: Profile) -> Item:
        """See Destination. `suppress` deletes the person and lets the API ignore every later write of it."""
        return items.suppress(profile, self._brands.get(profile.brand_id))

    def encode_event(self, event: StoredEvent) -> Sequence[Item]:
        """See Destination."""
        brand, names = self._brands.get(event.brand_id), self._settings.events
        whole = items.event(event, brand, names[event.name]) if event.name in names else None
        balance = items.balance(event, brand, names[PLAYER_BALANCE]) if PLAYER_BALANCE in names else None
        return [item for item in (whole, balance) if item is not None]

    def batches(self, batch: Sequence[Item]) -> Sequence[Sequence[Item]]:
        """See Destination."""
        return items.pack(batch)

    def deliver(self, batch: Sequence[Item], *, urgent: bool = False) -> Sequence[Refusal | None]:
        """See Destination. A refused whole is halved until the culprit stands alone: that one is refused."""
        outcomes: list[Refusal | None] = [_TOO_LARGE if len(item.body) > items.ITEM_BYTES else None for item in batch]
        sent = [index for index, outcome in enumerate(outcomes) if outcome is None]
        for index, refusal in zip(sent, self._send([batch[index] for index in sent], urgent=urgent), strict=True):
            outcomes[index] = refusal
        self._sync_segments(batch, outcomes, urgent=urgent)
        return outcomes

    def ping(self) -> str:
        """See Destination. The region endpoint is the only one that tells a wrong key pair from a right one."""
        response = self._request("GET", "/api/v1/accounts/region", None, urgent=True)
        if response.status_code == httpx.codes.NOT_FOUND and self._settings.url is not None:
            return f"{self._settings.url}, which tells no region"
        if response.status_code != httpx.codes.OK:
            raise Transient(f"destination {self.name}: region check answered {response.status_code}")
        told = _json(response)
        region, workspace = str(told.get("region", "?")), told.get("environment_id")
        if region != self._settings.region:
            raise Halted(
                f"destination {self.name}: the workspace is in region {region}, "
                f"the configuration says {self._settings.region}",
                hint="set destinations[].region to the workspace's own region",
            )
        if self._settings.workspace_id is not None and workspace != self._settings.workspace_id:
            raise Halted(
                f"destination {self.name}: these credentials open workspace {workspace}, "
                f"not {self._settings.workspace_id}",
                hint="use the credentials of the configured workspace",
            )
        return f"workspace {workspace}, region {region}"

    def close(self) -> None:
        """See Destination."""
        self._client.close()

    def _send(self, batch: Sequence[Item], *, urgent: bool) -> list[Refusal | None]:
        if not batch:
            return []
        body = b'{"batch":[' + b",".join(item.body for item in batch) + b"]}"
        response = self._request("POST", "/api/v2/batch", body, urgent=urgent)
        if response.status_code in {200, 207}:
            self._throttle.accepted()
            return _outcomes(_json(response), len(batch))
        if response.status_code == httpx.codes.NOT_FOUND:
            raise Halted(
                f"destination {self.name}: no Track v2 API at {self._client.base_url}", hint="check destinations[].url"
            )
        if len(batch) > 1:
            middle = len(batch) // 2
            return self._send(batch[:middle], urgent=urgent) + self._send(batch[middle:], urgent=urgent)
        error = next(iter(_errors(_json(response))), {})
        return [_refusal(error, default=f"HTTP {response.status_code}")]

    def _sync_segments(self, batch: Sequence[Item], outcomes: list[Refusal | None], *, urgent: bool) -> None:
        """Bring manual segments in step with the profiles that were accepted; people have to be there before.

        Every membership is said again with its profile: nobody knows what became of a request without an answer.
        """
        moves: dict[tuple[int, str], dict[str, int]] = {}
        for index, item in enumerate(batch):
            if (item.leaves or item.joins) and outcomes[index] is None:
                for number, move in [*((n, "remove") for n in item.leaves), *((n, "add") for n in item.joins)]:
                    moves.setdefault((number, move), {})[item.person] = index
        for (number, move), people in sorted(moves.items()):
            listed = list(people.items())
            for part in (listed[first:][: items.SEGMENT_IDS] for first in range(0, len(listed), items.SEGMENT_IDS)):
                refusal = self._move(number, move, [person for person, _ in part], urgent=urgent)
                for _, index in part:
                    outcomes[index] = outcomes[index] or refusal

    def _move(self, number: int, move: str, people: Sequence[str], *, urgent: bool) -> Refusal | None:
        body = json.dumps({"ids": people}).encode()
        response = self._request("POST", f"/api/v1/segments/{number}/{move}_customers", body, urgent=urgent)
        if response.status_code == httpx.codes.OK:
            self._throttle.accepted()
            return None
        if response.status_code == httpx.codes.NOT_FOUND and move == "remove":
            return None  # who is in no segment need not leave it
        message = f"manual segment {number}: HTTP {response.status_code}; is it the number in destinations[].segments?"
        return Refusal("segment", f"segment:{number}", message)

    def _request(self, method: str, path: str, body: bytes | None, *, urgent: bool) -> httpx.Response:
        """Send one request; return only answers that are about its content."""
        self._throttle.take(urgent=urgent)
        try:
            response = self._client.request(method, path, content=body)
        except httpx.RequestError as error:
            self._throttle.objected()
            raise Transient(
                f"destination {self.name}: {type(error).__name__} from {self._client.base_url.host}"
            ) from error
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            self._throttle.objected()
            raise Throttled(f"destination {self.name}: HTTP {status}", after=_retry_after(response))
        if status in {401, 403}:
            raise Halted(
                f"destination {self.name}: HTTP {status}, the credentials are refused", hint="check site_id and api_key"
            )
        if response.is_redirect:
            raise Halted(
                f"destination {self.name}: redirected to another host (HTTP {status})",
                hint="the workspace lives in the other region: set destinations[].region",
            )
        if status not in {200, 207, 404} and status not in _SPLIT:
            raise Transient(f"destination {self.name}: HTTP {status} from {path}")
        return response


def _outcomes(answer: Mapping[str, Any], size: int) -> list[Refusal | None]:
    """Read `errors[]`; one that names no item of the batch is about the whole of it."""
    outcomes: list[Refusal | None] = [None] * size
    for error in _errors(answer):
        index = error.get("batch_index")
        if isinstance(index, int) and 0 <= index < size:
            outcomes[index] = _refusal(error)
        else:
            outcomes = [outcome or _refusal(error) for outcome in outcomes]
    return outcomes


def _errors(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = answer.get("errors")
    return [error for error in found if isinstance(error, dict)] if isinstance(found, list) else []


def _refusal(error: Mapping[str, Any], *, default: str = "refused") -> Refusal:
    return Refusal(str(error.get("reason") or default), str(error.get("field") or ""), str(error.get("message") or ""))


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        value = json.loads(response.content or b"{}")
        value = json.loads(value) if isinstance(value, str) else value  # seen live: a body encoded twice
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(response: httpx.Response) -> float:
    try:
        asked = float(response.headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return min(_RETRY_AFTER_MOST, asked) if asked > 0 else 0.0
