"""Emulators of the APIs that the connector delivers to, by name. Each entry starts one and returns its handle."""

from __future__ import annotations

from connector.emulators.serve import start

EMULATORS = {"customerio": start}
