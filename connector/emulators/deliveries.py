"""Messages that were never sent: a test says what happened to one, the workspace records and reports it.

Campaigns are not emulated; nothing here decides that somebody is written to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from connector.emulators.ledger import ulid

if TYPE_CHECKING:
    from connector.emulators.options import Json
    from connector.emulators.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One metric of one message to one person."""

    customer_id: str
    object_type: str
    metric: str
    delivery_id: str
    data: Json

    @classmethod
    def of(cls, body: Json) -> Self:
        """Read `{"customer_id","object_type","metric","delivery_id","data"}`; raise `ValueError` on anything else."""
        wanted = ("customer_id", "object_type", "metric", "delivery_id")
        missing = [name for name in wanted if not isinstance(body.get(name), str) or not body[name]]
        if missing:
            raise ValueError(f"missing or no text: {', '.join(missing)}")
        data = body.get("data", {})
        if not isinstance(data, dict):
            raise ValueError("data must be an object")  # noqa: TRY004  one error for one kind of mistake
        return cls(**{name: body[name] for name in wanted}, data=data)

    def record(self, state: State, *, at: float) -> Json:
        """Add the message to the person's, or the metric to the message; return the webhook body that is raised."""
        person = state.people.find("id", self.customer_id)
        if person is None:
            raise ValueError("nobody has this customer_id")
        message = person.messages.setdefault(
            self.delivery_id,
            {
                "id": self.delivery_id,
                "deduplicate_id": f"{self.delivery_id}:{int(at)}",
                "type": self.object_type,
                "customer_id": self.customer_id,
                "recipient": person.attributes.get("email"),
                "created": int(at),
                "metrics": {},
                **self.data,
            },
        )
        message["metrics"][self.metric] = int(at)
        state.deliveries[self.delivery_id] = person.cio_id
        state.counts["webhooks_raised"] += 1
        body = {
            "event_id": ulid(at, f"webhook {state.counts['webhooks_raised']}"),
            "object_type": self.object_type,
            "metric": self.metric,
            "timestamp": int(at),
            "data": {
                "customer_id": self.customer_id,
                "identifiers": person.identifiers,
                "delivery_id": self.delivery_id,
                "recipient": person.attributes.get("email"),
                **self.data,
            },
        }
        state.notify(body)
        return body
