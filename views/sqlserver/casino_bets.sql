-- SQL Server 2017 or later: the stream casino_bets, mode single_table: bets, wins and what was taken back, told apart by
-- [type]; cursor id, key id.
--
-- Adapt: schema, tables, brand, the condition for "a bet or a win". The id must grow with time and be the clustered
-- primary key; it may have gaps. Amounts are absolute: the type says in which direction the money went. A win row has
-- no stake of its own, so its bet_amount is NULL.
-- Base tables: balance_transactions, accounts, casino_games, games, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.casino_bets as
select
    t.id,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    a.user_id as user_ext_id,
    t.action as [type],
    t.id as bet_id,
    coalesce(r.rollback_of, r.id) as round_id,
    t.created_at as bet_date,
    case when t.action in ('bet', 'rollback_bet') then abs(t.amount_cents) * c.unit end as bet_amount,
    case when t.action in ('bet', 'rollback_bet') then abs(t.amount_cents - t.bonus_amount_cents) * c.unit end
        as bet_amount_real,
    case when t.action in ('bet', 'rollback_bet') then abs(t.bonus_amount_cents) * c.unit end as bet_amount_bonus,
    case when t.action in ('win', 'rollback_win') then abs(t.amount_cents) * c.unit end as win_amount,
    case when t.action in ('win', 'rollback_win') then abs(t.amount_cents - t.bonus_amount_cents) * c.unit end
        as win_amount_real,
    case when t.action in ('win', 'rollback_win') then abs(t.bonus_amount_cents) * c.unit end as win_amount_bonus,
    a.currency,
    r.game_id,
    g.title as game_name,
    g.category as game_category,
    g.provider as game_provider
from casino.balance_transactions as t
left join casino.accounts as a on a.id = t.account_id
left join casino.currency_scale as c on c.code = a.currency
left join casino.casino_games as r on r.id = t.reference_id
left join casino.games as g on g.id = r.game_id
where t.action in ('bet', 'win', 'rollback_bet', 'rollback_win') and t.reference_type = 'CasinoGame';
go
