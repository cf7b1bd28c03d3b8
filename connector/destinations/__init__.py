"""APIs that are fed: one file each. To add one: write its file (see contract.py), list its kind here."""

from __future__ import annotations

from typing import Final

from connector.destinations.customerio_track import CustomerIOTrack

#: Value of destinations[].kind -> implementation.
DESTINATIONS: Final[dict[str, type[CustomerIOTrack]]] = {"customerio_track": CustomerIOTrack}
