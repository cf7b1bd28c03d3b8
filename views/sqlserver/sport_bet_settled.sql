-- SQL Server 2017 or later: the stream sport_bet_settled: settlements of the sportsbook, a row each; cursor id, key id.
--
-- Adapt: schema, tables, brand, the names of the statuses: WON, LOST, VOID, CASHOUT, HALF_WON, HALF_LOST. win_amount is
-- all that is paid out, the stake included, and 0 for a lost bet; of a VOID bet it counts for nothing, the stake is
-- taken back instead. A settlement never changes: one that was wrong is undone by a row of its own (is_rollback), which
-- repeats its status and amounts, and then settled again.
-- Base tables: sport_bet_settlements, sport_bets, accounts, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.sport_bet_settled as
select
    s.id,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    a.user_id as user_ext_id,
    s.bet_id,
    s.created_at as settlement_date,
    s.status as bet_status,
    b.amount_cents * c.unit as bet_amount,
    s.payoff_cents * c.unit as win_amount,
    s.cashout_cents * c.unit as cashout_amount,
    a.currency,
    s.reason as void_reason,
    s.undone as is_rollback
from casino.sport_bet_settlements as s
left join casino.sport_bets as b on b.id = s.bet_id
left join casino.accounts as a on a.id = b.account_id
left join casino.currency_scale as c on c.code = a.currency;
go
