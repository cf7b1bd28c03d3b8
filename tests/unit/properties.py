"""What the events of a page tell, by name: as the ledger's readers see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from connector.event import named

if TYPE_CHECKING:
    from connector.normalised import Normalised


def told(found: Normalised) -> list[dict[str, str]]:
    """Return each event's properties."""
    rows = found.events.select("properties", "packed").iter_rows()
    return [dict(named(found.shape, json.loads(whole or "null"), packed)) for whole, packed in rows]
