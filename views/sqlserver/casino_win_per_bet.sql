-- SQL Server 2017 or later: the stream casino_bets in mode win_per_bet: one row per finished round with its stake and its
-- win, which is 0 when the round was lost; cursor dt, key bet_id.
--
-- Use this instead of casino_bets.sql when your platform resolves every bet. Adapt: schema, tables, brand. A round is
-- visible only when it is finished, and does not change after that: one that is taken back later gets a second row
-- with is_rollback, which repeats the amounts.
-- Base tables: casino_games, accounts, games, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.casino_win_per_bet as
select
    r.finished_at as dt,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
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
    cast(case when r.rollback_of is null then 0 else 1 end as bit) as is_rollback
from casino.casino_games as r
left join casino.accounts as a on a.id = r.account_id
left join casino.currency_scale as c on c.code = a.currency
left join casino.games as g on g.id = r.game_id
where r.finished_at is not null;
go
