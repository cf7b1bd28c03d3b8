-- PostgreSQL: the stream casino_bets in mode separate: casino_bets_separate for the stakes, casino_wins for the wins;
-- cursor id, key id in both. Use this instead of casino_bets.sql when your bets and wins lie in two tables.
--
-- Adapt: schema, tables, brand. What was taken back is a row of its own (is_rollback); a win names its bet by round_id.
-- The stake repeated on a win row is never added to what the player wagered.

create schema if not exists crm_export;

create or replace view crm_export.casino_bets_separate as
select
    t.id,
    'kaasino'::text as ext_brand_id,
    a.user_id as user_ext_id,
    t.id as bet_id,
    coalesce(r.rollback_of, r.id) as round_id,
    t.created_at as bet_date,
    abs(t.amount_cents) * c.unit as bet_amount,
    abs(t.amount_cents - t.bonus_amount_cents) * c.unit as bet_amount_real,
    abs(t.bonus_amount_cents) * c.unit as bet_amount_bonus,
    a.currency,
    r.game_id,
    g.title as game_name,
    g.category as game_category,
    g.provider as game_provider,
    t.action = 'rollback_bet' as is_rollback
from casino.balance_transactions as t
left join casino.accounts as a on a.id = t.account_id
left join casino.currency_scale as c on c.code = a.currency
left join casino.casino_games as r on r.id = t.reference_id
left join casino.games as g on g.id = r.game_id
where t.action in ('bet', 'rollback_bet') and t.reference_type = 'CasinoGame';

create or replace view crm_export.casino_wins as
select
    t.id,
    'kaasino'::text as ext_brand_id,
    a.user_id as user_ext_id,
    t.id as bet_id,
    coalesce(r.rollback_of, r.id) as round_id,
    t.created_at as bet_date,
    r.bets_sum * c.unit as bet_amount,
    abs(t.amount_cents) * c.unit as win_amount,
    abs(t.amount_cents - t.bonus_amount_cents) * c.unit as win_amount_real,
    abs(t.bonus_amount_cents) * c.unit as win_amount_bonus,
    a.currency,
    r.game_id,
    g.title as game_name,
    g.category as game_category,
    g.provider as game_provider,
    t.action = 'rollback_win' as is_rollback
from casino.balance_transactions as t
left join casino.accounts as a on a.id = t.account_id
left join casino.currency_scale as c on c.code = a.currency
left join casino.casino_games as r on r.id = t.reference_id
left join casino.games as g on g.id = r.game_id
where t.action in ('win', 'rollback_win') and t.reference_type = 'CasinoGame';
