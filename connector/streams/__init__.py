"""One file per operator view. To add a view: write its contract, list it here, put its SQL into views/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector.streams import (
    bonuses,
    casino,
    deposits,
    erasures,
    failed_deposits,
    fx_rates,
    labels,
    player_totals,
    selections,
    sport,
    user_profile,
    withdrawals,
)

if TYPE_CHECKING:
    from connector.streams.contract import Contract

#: Every stream, in the order of a cycle: who is to be forgotten, users, so that a transaction finds its player, and
#: rates before amounts.
STREAMS: Final[dict[str, Contract]] = {
    contract.stream: contract
    for contract in (
        erasures.CONTRACT,
        *(user_profile.CONTRACT, fx_rates.CONTRACT, labels.TAGS, labels.GROUPS),
        *(deposits.CONTRACT, withdrawals.CONTRACT, casino.BETS, casino.WINS),
        *(sport.OPEN, selections.OPEN, sport.SETTLED, selections.SETTLED),
        *(failed_deposits.CONTRACT, bonuses.CONTRACT, player_totals.CONTRACT),
    )
}
