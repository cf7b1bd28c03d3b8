"""What traffic writes: one multi-row statement per kind of row, stamped by the server's clock.

Owns the SQL of live traffic and the drawing of ids. It decides nothing: what happens is told by stories.py, and when
a batch is committed by traffic.py.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeAlias, TypeVar

if TYPE_CHECKING:
    import psycopg

#: In the order of execution. Stamps are clock_timestamp(): each row has its own, older than its commit.
STATEMENTS: Final[dict[str, LiteralString]] = {
    "users": """
        insert into casino.users (id, username, email, affiliate_id, stag, created_at, updated_at)
        select v.*, timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::text[], %s::text[], %s::integer[], %s::text[]) as v""",
    "profiles": """
        insert into casino.profiles (
            user_id, first_name, last_name, gender, date_of_birth, country, city, language, time_zone, updated_at
        )
        select v.*, timezone('UTC', clock_timestamp())
        from unnest(
            %s::bigint[], %s::text[], %s::text[], %s::text[], %s::date[], %s::text[], %s::text[], %s::text[], %s::text[]
        ) as v""",
    "phones": """
        insert into casino.phones (user_id, number, updated_at)
        select v.*, timezone('UTC', clock_timestamp()) from unnest(%s::bigint[], %s::text[]) as v""",
    "accounts": """
        insert into casino.accounts (id, user_id, currency, main, created_at, updated_at)
        select v.*, true, timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[], %s::text[]) as v""",
    "logins": """
        update casino.users as u set
            sign_in_count = sign_in_count + 1, last_sign_in_at = timezone('UTC', clock_timestamp()),
            last_sign_in_country = v.country, updated_at = timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::text[]) as v (id, country) where u.id = v.id""",
    "confirmations": """
        update casino.users as u set state = 'active', confirmed_at = timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[]) as v (id) where u.id = v.id""",
    "exclusions": """
        update casino.users as u set state = 'self_excluded', self_excluded_until = date_trunc('day', now()) + v.days
        from unnest(%s::bigint[], %s::interval[]) as v (id, days) where u.id = v.id""",
    "cool_offs": """
        update casino.users as u set cooling_off_until = timezone('UTC', date_trunc('hour', now()) + v.days)
        from unnest(%s::bigint[], %s::interval[]) as v (id, days) where u.id = v.id""",
    "verifications": """
        update casino.users as u set kyc_status = v.status, kyc_level = v.level
        from unnest(%s::bigint[], %s::text[], %s::smallint[]) as v (id, status, level) where u.id = v.id""",
    "preferences": """
        update casino.profiles as p set
            receive_promos = v.mail, receive_sms_promos = v.sms, updated_at = timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::boolean[], %s::boolean[]) as v (id, mail, sms) where p.user_id = v.id""",
    "tags": """
        insert into casino.users_tags (user_id, name, created_at)
        select v.*, timezone('UTC', clock_timestamp()) from unnest(%s::bigint[], %s::text[]) as v
        on conflict do nothing""",
    "untags": """
        delete from casino.users_tags as t using unnest(%s::bigint[], %s::text[]) as v (id, name)
        where t.user_id = v.id and t.name = v.name""",
    "groups": """
        insert into casino.users_groups (user_id, code, created_at)
        select v.*, timezone('UTC', clock_timestamp()) from unnest(%s::bigint[], %s::text[]) as v
        on conflict do nothing""",
    "payments": """
        insert into casino.payments (
            id, user_id, account_id, action, amount_cents, currency, payment_system, psp_brand, bonus_code, fee_cents,
            created_at, updated_at
        )
        select v.*, timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
        from unnest(
            %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
            %s::text[], %s::bigint[]
        ) as v""",
    "chargebacks": """
        insert into casino.payments (
            id, user_id, account_id, action, amount_cents, currency, success, payment_system, psp_brand, reversal_of,
            created_at, updated_at, finished_at
        )
        select v.id, user_id, account_id, 'chargeback', amount_cents, currency, true, payment_system, psp_brand, p.id,
            timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[]) as v (id, deposit) join casino.payments as p on p.id = v.deposit""",
    "outcomes": """
        update casino.payments as p set
            success = v.success, decline_reason = v.reason, real_balance_cents = v.balance,
            bonus_balance_cents = case when v.balance is not null then 0 end,
            updated_at = timezone('UTC', clock_timestamp()),
            finished_at = case when v.final then timezone('UTC', clock_timestamp()) end
        from unnest(%s::bigint[], %s::boolean[], %s::boolean[], %s::text[], %s::bigint[])
            as v (id, success, final, reason, balance)
        where p.id = v.id""",
    # the back office approves in batches: what is approved in one transaction shares its stamp
    "transitions": """
        insert into casino.payment_transitions (payment_id, status, reason, created_at)
        select v.*, timezone('UTC', case when v.status = 'APPROVED' then now() else clock_timestamp() end)
        from unnest(%s::bigint[], %s::text[], %s::text[]) as v (payment_id, status, reason)""",
    "rounds": """
        insert into casino.casino_games (
            id, account_id, game_id, bets_sum, payoff_sum, rollback_of, created_at, finished_at
        )
        select v.id, v.account_id, v.game_id, v.stake, v.payoff, v.rollback_of, timezone('UTC', clock_timestamp()),
            case when v.final then timezone('UTC', clock_timestamp()) end
        from unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[], %s::bigint[])
            as v (id, account_id, game_id, stake, payoff, final, rollback_of)""",
    "settlements": """
        update casino.casino_games as r set payoff_sum = v.payoff, finished_at = timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[]) as v (id, payoff) where r.id = v.id""",
    "transactions": """
        insert into casino.balance_transactions (
            id, account_id, reference_type, reference_id, action, amount_cents, bonus_amount_cents, created_at
        )
        select coalesce(v.id, nextval('casino.balance_transactions_id_seq')), v.account_id, 'CasinoGame', v.round_id,
            v.action, v.amount, v.bonus, timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
            as v (id, account_id, round_id, action, amount, bonus)""",
    "sport_bets": """
        insert into casino.sport_bets (
            id, account_id, kind, amount_cents, total_odds, selections_count, potential_payoff_cents, live, created_at
        )
        select v.id, v.account_id, v.kind, v.stake, v.odds / 100.0, v.selections, v.potential, v.live,
            timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[],
            %s::boolean[]) as v (id, account_id, kind, stake, odds, selections, potential, live)""",
    "selections": """
        insert into casino.sport_bet_selections (
            id, bet_id, event_id, event_title, sport, league, market, outcome, odds, home_team, away_team, live,
            event_starts_at, created_at
        )
        select v.id, v.bet_id, v.event_id, v.title, v.sport, v.league, v.market, v.outcome, v.odds / 100.0, v.home,
            v.away, v.live, timezone('UTC', date_trunc('hour', now())), timezone('UTC', clock_timestamp())
        from unnest(
            %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::integer[], %s::text[], %s::text[], %s::boolean[]
        ) as v (id, bet_id, event_id, title, sport, league, market, outcome, odds, home, away, live)""",
    "sport_settlements": """
        insert into casino.sport_bet_settlements (
            bet_id, status, payoff_cents, cashout_cents, reason, undone, created_at
        )
        select v.*, timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::boolean[]) as v""",
    "results": """
        insert into casino.sport_selection_results (selection_id, status, score, created_at)
        select v.*, timezone('UTC', clock_timestamp()) from unnest(%s::bigint[], %s::text[], %s::text[]) as v""",
    "bonuses": """
        insert into casino.bonus_issues (
            id, account_id, title, strategy, amount_cents, wager_requirement_cents, freespins, valid_until, created_at
        )
        select v.*, timezone('UTC', date_trunc('day', now()) + interval '14 days'), timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::smallint[])
            as v""",
    "bonus_statuses": """
        insert into casino.bonus_transitions (bonus_issue_id, status, wagered_cents, created_at)
        select v.*, timezone('UTC', clock_timestamp()) from unnest(%s::bigint[], %s::text[], %s::bigint[]) as v""",
    "balances": """
        update casino.accounts as a set amount_cents = v.amount, updated_at = timezone('UTC', clock_timestamp())
        from unnest(%s::bigint[], %s::bigint[]) as v (id, amount) where a.id = v.id""",
}

#: Statements whose every row is a row, new or changed, of one of the polled views.
VISIBLE: Final = frozenset({
    "users", "logins", "confirmations", "exclusions", "cool_offs", "verifications", "preferences", "tags", "untags",
    "groups", "chargebacks", "transitions", "transactions", "sport_bets", "selections", "sport_settlements", "results",
    "bonus_statuses",
})  # fmt: skip
_BLOCK: Final = 200


@dataclass
class Batch:
    """Rows that are written in one transaction, by the name of their statement."""

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, statement: str, *row: object) -> None:
        """Add one row, its values in the order of the statement's arrays."""
        self.rows[statement].append(row)

    def write(self, connection: psycopg.Connection) -> int:
        """Write the rows in the transaction that is open on `connection`; return how many of them the views show."""
        for name, statement in STATEMENTS.items():
            if name in self.rows:
                connection.execute(statement, [list(column) for column in zip(*self.rows[name], strict=True)])
        return sum(len(rows) for name, rows in self.rows.items() if name in VISIBLE)


@dataclass(slots=True)
class Hold:
    """A story's wish: write `batch` in a transaction of its own and commit it `seconds` later; then go on."""

    batch: Batch
    seconds: float


T_co = TypeVar("T_co", covariant=True)
#: A happening in steps; see stories.py.
Story: TypeAlias = Generator[float | Hold, None, T_co]


class Ids:
    """Ids of one table, drawn from its sequence in blocks, as an application server does that knows them beforehand."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._blocks: dict[str, deque[int]] = defaultdict(deque)

    def take(self, table: str) -> int:
        """Return an id from the block at hand: it may be older than ids already visible."""
        block = self._blocks[table]
        if not block:
            block.extend(self._draw(table, _BLOCK))
        return block.popleft()

    def draw(self, table: str) -> int:
        """Return the sequence's next id, drawn now."""
        return self._draw(table, 1)[0]

    def _draw(self, table: str, count: int) -> list[int]:
        query = "select nextval(pg_get_serial_sequence('casino.' || %s::text, 'id')) from generate_series(1, %s)"
        return [row[0] for row in self._connection.execute(query, (table, count)).fetchall()]
