"""The daemon starts while its store is away: it is ready, waits, and goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from connector import app as application, config
from connector.errors import Transient
from connector.store import embedded
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USERS = """
    create view user_profile as select timestamptz '2026-01-01' as dt_update, 'kaasino' as ext_brand_id, user_ext_id,
        'ACTIVE' as core_account_status, timestamptz '2025-01-01' as core_registration_date, 'EN' as core_user_language,
        'EUR' as core_wallet_currency from generate_series(1, 3) as user_ext_id
"""


def test_a_store_that_comes_later_is_prepared_and_filled(directory: Path, operator_of: Callable[[str], Any]) -> None:
    """Loops fail and are tried again; the first connection brings the schema."""
    operator = operator_of("postgresql")
    operator.execute(USERS)
    server = embedded.start(directory / "later", settings={"fsync": "off"})
    url, port = server.create_database("crm"), server.port
    server.stop()
    source = {"name": "casino", "url": operator.url, "streams": {"user_profile": {}}}
    settings = config.parse({"store": {"url": url}, "sources": [source], "web": None}, streams=list(STREAMS))
    with pytest.raises(Transient, match="the store is not available"):
        application.build(settings)
    app = application.build(settings, waits=True)
    server = embedded.start(directory / "later", port=port, settings={"fsync": "off"})
    try:
        app.cycles[0].run_once()
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from crm.players").fetchone() == (3,)
    finally:
        app.close()
        server.stop()
