"""Small builders for unit tests: rows as a source writes them (texts), bound views, profiles, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest

from connector import config
from connector.player import PROFILES
from connector.streams import STREAMS
from connector.streams.contract import Binding, Context, bind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connector.normalised import Normalised

IDENTITY: Final = {"ext_brand_id": "kaasino", "user_ext_id": "007"}
#: One good row of every stream, as texts.
ROWS: Final[dict[str, dict[str, str | None]]] = {
    "user_profile": {
        "dt_update": "2026-03-01 10:00:00.123456",
        **IDENTITY,
        "core_account_status": "ACTIVE",
        "core_registration_date": "2025-01-02 03:04:05.678",
        "core_user_language": "EN",
        "core_wallet_currency": "EUR",
    },
    "user_tags": {"dt_update": "2026-03-01 10:00:00.123456", **IDENTITY, "tag": "vip"},
    "user_groups": {"dt_update": "2026-03-01 10:00:00.123456", **IDENTITY, "group": "00011"},
    "deposits": {
        "dt_finalized": "2026-03-01 10:00:00.123456",
        **IDENTITY,
        "transaction_id": "d-1",
        "transaction_date": "2026-03-01 09:59:58",
        "deposit_amount": "25.50",
    },
    "withdrawals": {
        "dt_finalized": "2026-03-01 10:00:00.123456",
        **IDENTITY,
        "transaction_id": "w-1",
        "transaction_date": "2026-03-01 09:59:58",
        "withdrawal_amount": "40",
        "withdrawal_status": "COMPLETED",
    },
    "casino_bets": {
        "id": "1001",
        **IDENTITY,
        "bet_id": "b-1",
        "type": "bet",
        "bet_date": "2026-03-01 10:00:00",
        "bet_amount": "2.5",
        "win_amount": None,
        "game_name": "Lucky Lemons",
        "game_id": "lemons",
    },
    "casino_wins": {
        "id": "5001",
        **IDENTITY,
        "bet_id": "b-1",
        "bet_date": "2026-03-01 10:00:01",
        "bet_amount": "2.5",
        "win_amount": "7.5",
        "game_name": "Lucky Lemons",
        "game_id": "lemons",
    },
    "sport_bet_open": {
        "id": "11",
        **IDENTITY,
        "bet_id": "s-1",
        "bet_date": "2026-03-01 10:00:00",
        "bet_amount": "20",
    },
    "sport_bet_selection_open": {
        "id": "21",
        **IDENTITY,
        "bet_id": "s-1",
        "selection_id": "s-1-a",
        "bet_date": "2026-03-01 10:00:00",
    },
    "sport_bet_settled": {
        "id": "31",
        **IDENTITY,
        "bet_id": "s-1",
        "settlement_date": "2026-03-01 12:00:00",
        "bet_status": "WON",
        "bet_amount": "20",
        "win_amount": "45.50",
    },
    "sport_bet_selection_settled": {
        "id": "41",
        **IDENTITY,
        "bet_id": "s-1",
        "selection_id": "s-1-a",
        "settled_at": "2026-03-01 12:00:00",
        "selection_status": "WON",
    },
    "failed_deposits": {
        "dt_finalized": "2026-03-01 10:00:00.123456",
        **IDENTITY,
        "transaction_id": "d-9",
        "transaction_date": "2026-03-01 09:59:58",
        "deposit_amount": "25.50",
        "status": "FAILED",
    },
    "bonuses": {
        "id": "51",
        **IDENTITY,
        "bonus_id": "x-1",
        "status": "ISSUED",
        "bonus_date": "2026-03-01 10:00:00",
    },
    "fx_rates": {
        "dt_update": "2026-03-01 10:00:00.123456",
        "base": "EUR",
        "currency": "GBP",
        "valid_from": "2026-03-01 10:00:00",
        "rate": "1.17",
    },
    "erasures": {"dt_update": "2026-03-01 10:00:00.123456", **IDENTITY, "mode": "delete"},
    "player_totals": {
        "as_of": "2026-03-01 10:00:00",
        **IDENTITY,
        "total_deposited": "100.5",
        "total_wagered": "2000",
        "total_won": None,
        "deposit_count": "3",
        "bet_count": "12",
    },
}


def _row(stream: str, *, without: Sequence[str] = (), **changes: str | None) -> dict[str, str | None]:
    return {name: value for name, value in (ROWS[stream] | changes).items() if name not in without}


def _bound(stream: str, columns: Sequence[str], /, **settings: Any) -> Binding:
    types = {name: "bigint" if name.lower() == "id" else "text" for name in columns}
    scales = settings.pop("scales", None)
    return bind(STREAMS[stream], config.Stream(**settings), types, view=stream, scales=scales)


def _normalise(
    stream: str, rows: Sequence[dict[str, str | None]], /, *, context: Context | None = None, **settings: Any
) -> Normalised:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    page = pl.DataFrame(list(rows), schema=dict.fromkeys(columns, pl.String))
    return STREAMS[stream].normalise(page, _bound(stream, columns, **settings), context or Context())


def _profiles(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {
        "brand_id": "kaasino",
        "external_id": "007",
        "status": "active",
        "status_raw": "ACTIVE",
        "history": False,
        "traits": "{}",
    }
    return pl.DataFrame([dict.fromkeys(PROFILES) | base | row for row in rows], schema=PROFILES)


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, str | None]]:
    """Return a builder of one good row of a stream, changed by keyword, columns left out by `without`."""
    return _row


@pytest.fixture(scope="session")
def bound() -> Callable[..., Binding]:
    """Return a builder that binds a stream's contract to a view of these columns."""
    return _bound


@pytest.fixture(scope="session")
def normalise() -> Callable[..., Normalised]:
    """Return a builder that runs a stream's normaliser over rows of texts."""
    return _normalise


@pytest.fixture(scope="session")
def profiles() -> Callable[..., pl.DataFrame]:
    """Return a builder of profile frames, one row a keyword mapping."""
    return _profiles
