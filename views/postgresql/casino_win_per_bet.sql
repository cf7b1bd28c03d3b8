-- PostgreSQL: the stream casino_bets in mode win_per_bet: one row per finished round with its stake and its win, which
-- is 0 when the round was lost; cursor dt, key bet_id.
--
-- Use this instead of casino_bets.sql when your platform resolves every bet. Adapt: schema, tables, brand. A round is
-- visible only when it is finished, and does not change after that: one that is taken back later gets a second row
-- with is_rollback, which repeats the amounts.

create schema if not exists crm_export;

create or replace view crm_export.casino_win_per_bet as
select
    r.finished_at as dt,
    'kaasino'::text as ext_brand_id,
    a.user_id as user_ext_id,
    r.id as bet_id,
    coalesce(r.rollback_of, r.id) as round_id,
    r.created_at as bet_date,
    r.bets_sum * c.unit as bet_amount,
    r.payoff_sum * c.unit as win_amount,
    a.currency,
    r.game_id,
    g.title as game_name,
    g.category as game_category,
    g.provider as game_provider,
    r.rollback_of is not null as is_rollback
from casino.casino_games as r
left join casino.accounts as a on a.id = r.account_id
left join casino.currency_scale as c on c.code = a.currency
left join casino.games as g on g.id = r.game_id
where r.finished_at is not null;
