"""What players did in casino and sportsbook is worked out in a third of the time: once a row of every page's totals."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

_FUNCTION = """
create or replace function crm.vertical_activity(
    wagered bigint, won bigint, bets bigint, last_bet timestamptz,
    sport_wagered bigint, sport_won bigint, sport_bets bigint, last_sport_bet timestamptz
) returns jsonb language {language} immutable parallel safe as $$ {body} $$
"""
#: One expression: PL/pgSQL keeps its plan, where SQL starts a query for each row, and may plan it anew.
_EXPRESSION = """
begin
    return case when bets <> sport_bets or wagered <> sport_wagered or won <> sport_won then
        jsonb_build_object('casino', jsonb_build_object(
            'wagered', wagered - sport_wagered, 'won', won - sport_won,
            'ggr', (wagered - sport_wagered) - (won - sport_won), 'bet_count', bets - sport_bets,
            'last_bet_at', to_char(last_bet at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
        else '{}' end
        || case when sport_bets <> 0 or sport_wagered <> 0 or sport_won <> 0 then
        jsonb_build_object('sportsbook', jsonb_build_object(
            'wagered', sport_wagered, 'won', sport_won,
            'ggr', sport_wagered - sport_won, 'bet_count', sport_bets,
            'last_bet_at', to_char(last_sport_bet at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
        else '{}' end;
end
"""
_QUERY = """
    select coalesce(jsonb_object_agg(vertical, jsonb_build_object(
        'wagered', wagered, 'won', won, 'ggr', wagered - won, 'bet_count', bets,
        'last_bet_at', to_char(last_bet at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), '{}')
    from (values ('casino', $1 - $5, $2 - $6, $3 - $7, $4), ('sportsbook', $5, $6, $7, $8))
      as v(vertical, wagered, won, bets, last_bet)
    where bets <> 0 or wagered <> 0 or won <> 0
"""


def upgrade() -> None:
    """The values stay what they are: no row is written."""
    op.execute(_FUNCTION.format(language="plpgsql", body=_EXPRESSION))


def downgrade() -> None:
    """As 0004 made it."""
    op.execute(_FUNCTION.format(language="sql", body=_QUERY))
