"""An exclusion with a million events pending: seconds from its commit until the API has it, and what followed it there.

`make bench-exclusion`. Every lane of a destination is busy with events when a player of theirs turns self-excluded. The
API's request log says when the exclusion came, and whether any event of that player came after it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import psycopg

from connector import app as application, clock, config
from connector.emulators import serve
from connector.event import NAMES
from connector.money import Rates
from connector.normalised import Normalised
from connector.player import PROFILES
from connector.service import Pace, Service
from connector.store import embedded, lease as leases
from connector.store.checkpoints import Checkpoint
from connector.store.commit import Batch, commit
from connector.streams import STREAMS

PLAYERS: Final = 20_000
_LAST_SECONDS: Final = 60.0
#: Let the lanes be busy before the player is excluded, and look for what follows afterwards.
_BUSY_SECONDS: Final = 10.0
_FILL: Final = """
    insert into crm.players (tenant, brand_id, external_id, default_currency_code, is_stub, status_raw, eligible,
                             marketable, source_updated_at)
    select 'bench', 'bench', n::text, 'EUR', false, 'ACTIVE', true, true, now() - interval '1 day'
    from generate_series(1, {players}) n;
    insert into crm.event_streams (tenant, source, stream, generation, brand_id)
    values ('bench', 'bench', 'deposits', 0, 'bench');
    insert into crm.event_rows (player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency,
                                amount, fx_rate_locked, properties)
    select min_id + n % {players}, now(), 1000, (select max(stream_id) from crm.event_streams),
           (select name_id from crm.event_names where name = 'deposit_confirmed'), 1, false, n::text, 'EUR', 10, 1,
           '{{}}'
    from generate_series(0, {events} - 1) n, (select min(player_id) as min_id from crm.players) p;
    analyze;
"""


def main() -> None:
    """Print the seconds, and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.exclusion")
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name, serve.start() as api:
        root = Path(name)
        root.chmod(0o755)
        server = embedded.start(root / "store", settings={"fsync": "off", "full_page_writes": "off"})
        try:
            found = _measure(server.url(), api, options.events)
        finally:
            server.stop()
    print(f"{found['pending']:,.0f} events pending: the exclusion was at the API after {found['seconds']:.2f} s")
    print(f"events of that player accepted after it: {found['events_after']:.0f}")
    print(json.dumps(found))


def _measure(url: str, api: serve.Running, events: int) -> dict[str, float]:
    document: dict[str, Any] = {
        "tenant": "bench",
        "store": {"url": url},
        "web": None,
        "sources": [{"name": "bench", "url": "postgresql://nobody@127.0.0.1:9/none", "streams": {"deposits": {}}}],
        "destinations": [
            {"name": "api", "kind": "customerio_track", "url": api.url, "site_id": "s", "api_key": "k", "rate": 100}
        ],
    }
    settings = config.parse(document, streams=list(STREAMS), events=NAMES)
    built = application.build(settings)
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(_FILL.format(players=PLAYERS, events=events).encode())
    service = Service([(relay, Pace(0.0, 0.25)) for relay in built.relays], built.metrics)
    service.start()
    try:
        threading.Event().wait(_BUSY_SECONDS)
        pending = events - api.workspace.counts()["events"]
        began = clock.monotonic()
        _exclude(built, settings)
        while not _unsubscribed(api):
            assert clock.monotonic() - began < _LAST_SECONDS, "the exclusion did not come"
            threading.Event().wait(0.005)
        seconds = clock.monotonic() - began
        before = _events_of(api)
        threading.Event().wait(_BUSY_SECONDS)
        after = _events_of(api) - before
    finally:
        service.stop()
        built.close()
    return {"pending": pending, "seconds": seconds, "events_after": after}


def _exclude(built: application.App, settings: config.Config) -> None:
    """Commit the profile of a player who excluded themselves, as the source's thread does."""
    at = datetime.now(UTC)  # noqa: TID251 - the operator's clock
    row = {
        **dict.fromkeys(PROFILES),
        "brand_id": "bench",
        "external_id": "1",
        "status": "self_excluded",
        "status_raw": "SELF_EXCLUDED",
        "eligible": False,
        "traits": "{}",
        "source_updated_at": at,
        "cursor": at.isoformat(),
        "history": False,
    }
    frame = pl.DataFrame([row], schema=PROFILES)
    point = Checkpoint("bench", "bench", "user_profile", 0, "dt_update", ("user_ext_id",), ("bench",), None, None, None)
    with built.database.connect() as connection:
        lease = leases.acquire(connection, "bench/source:bench")
        assert lease is not None
        batch = Batch(point, Normalised(profiles=frame))
        commit(connection, batch, rates=Rates(settings.base_currency, {}), lease=lease)


def _unsubscribed(api: serve.Running) -> bool:
    person = api.workspace.find("id", "bench:1")
    return person is not None and str(person.attributes.get("unsubscribed")).lower() in {"true", "1"}


def _events_of(api: serve.Running) -> int:
    person = api.workspace.find("id", "bench:1")
    return 0 if person is None else person.event_count


if __name__ == "__main__":
    main()
