"""Builds the demo casino on a running server: schema, history, the views of views/postgresql/ and the reader's role.

Owns the order of building and the counts that the demo compares with the store. Nothing happens in the casino until
traffic.py is started. The files of views/ are executed as they are, so that what a DBA receives is what is tested.
"""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from connector.demo import history
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from connector.store import embedded

DATABASE: Final = "kaasino"
BRAND: Final = "kaasino"
READER: Final = "crm_reader"
SCHEMA: Final = "crm_export"
#: Stream -> (view, cursor column).
STREAMS: Final = {
    "user_profile": ("user_profile", "dt_update"),
    "deposits": ("deposits", "dt_finalized"),
    "withdrawals": ("withdrawals", "dt_finalized"),
    "casino_bets": ("casino_bets", "id"),
    "sport_bet_open": ("sport_bet_open", "id"),
    "sport_bet_selection_open": ("sport_bet_selection_open", "id"),
    "sport_bet_settled": ("sport_bet_settled", "id"),
    "sport_bet_selection_settled": ("sport_bet_selection_settled", "id"),
    "failed_deposits": ("failed_deposits", "dt_finalized"),
    "bonuses": ("bonuses", "id"),
}
_VIEWS: Final = (
    *("user_profile", "deposits", "withdrawals", "casino_bets", "casino_wins_separate", "casino_win_per_bet"),
    *("sport_bet_open", "sport_bet_selection_open", "sport_bet_settled", "sport_bet_selection_settled"),
    *("failed_deposits", "bonuses"),
    *("fx_rates", "player_totals", "erasures"),
)
_SCHEMA_SQL: Final = Path(__file__).with_name("schema.sql")


@dataclasses.dataclass(frozen=True)
class Casino:
    """A built casino. Its URLs hold passwords: do not log them."""

    server: embedded.Server = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the names of the streams that the casino feeds."""
        return tuple(STREAMS)

    @property
    def views(self) -> dict[str, str]:
        """Return the schema-qualified view of each stream, for the configuration."""
        return {stream: f"{SCHEMA}.{view}" for stream, (view, _) in STREAMS.items()}

    @property
    def admin_url(self) -> str:
        """Return the owner's libpq URL, for traffic and for tests that make things happen."""
        return self.server.url(DATABASE)

    @property
    def url(self) -> str:
        """Return the reader's SQLAlchemy URL at the server the casino was built on."""
        return self.url_on(self.server)

    def url_on(self, server: embedded.Server) -> str:
        """Return the reader's SQLAlchemy URL at `server`, which may be a standby of the casino's own."""
        return f"postgresql+psycopg://{READER}:{self.password}@127.0.0.1:{server.port}/{DATABASE}"

    def counts(self, server: embedded.Server | None = None) -> dict[str, int]:
        """Return how many rows each stream can be read by now, all in one snapshot of `server` (default: the primary).

        Rows whose cursor is NULL don't count: they are not final.
        """
        parts = [
            sql.SQL("(select count({}) from {})").format(sql.Identifier(cursor), sql.Identifier(SCHEMA, view))
            for view, cursor in STREAMS.values()
        ]
        with psycopg.connect((server or self.server).url(DATABASE)) as connection:
            row = connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(parts))).fetchone()
        assert row is not None
        return dict(zip(STREAMS, row, strict=True))


def build(server: embedded.Server, *, players: int = 20_000, bets: int = 500_000, seed: int = 7) -> Casino:
    """Build the casino in the database `kaasino` of `server`, replacing any that is there.

    `bets` counts bets, wins and rollbacks. The server must be a primary, and ours: the role of the reader belongs to
    the whole cluster and gets a new password.
    """
    password = secrets.token_hex(16)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
        connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(READER)))
    with psycopg.connect(server.create_database(DATABASE), autocommit=True) as connection:
        _run(connection, _SCHEMA_SQL)
        folder = views_directory() / "postgresql"
        _run(connection, folder / "touched_at.sql")
        history.fill(connection, players=players, bets=bets, seed=seed)
        for name in (*_VIEWS, "indexes", "role"):
            _run(connection, folder / f"{name}.sql")
        connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(READER), sql.Literal(password)))
        connection.execute("vacuum (analyze)")
    return Casino(server, password)


def views_directory() -> Path:
    """Return the folder of the operators' views: beside the package in a checkout, inside it once installed."""
    here = Path(__file__).parent
    for folder in (here / "views", here.parents[1] / "views"):
        if (folder / "postgresql").is_dir():
            return folder
    raise Misconfigured("the SQL views of the demo are missing", hint="install the package again")


def _run(connection: psycopg.Connection, script: Path) -> None:
    connection.execute(script.read_bytes())
