-- SQL Server 2017 or later: the stream sport_bet_open: bets of the sportsbook, as they are placed; cursor id, key id.
--
-- Adapt: schema, tables, brand. The id must grow with time and be the primary key; it may have gaps. A placed bet never
-- changes: what becomes of it is told by sport_bet_settled. The stake of a free bet counts in what the player wagered:
-- show 0 as bet_amount if it shall not.
-- Base tables: sport_bets, accounts, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.sport_bet_open as
select
    b.id,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    a.user_id as user_ext_id,
    b.id as bet_id,
    b.created_at as bet_date,
    b.amount_cents * c.unit as bet_amount,
    (b.amount_cents - b.bonus_amount_cents) * c.unit as bet_amount_real,
    b.bonus_amount_cents * c.unit as bet_amount_bonus,
    a.currency,
    b.kind as bet_type,
    b.total_odds,
    b.selections_count as selection_count,
    b.potential_payoff_cents * c.unit as potential_win,
    b.live as is_live,
    b.freebet_id
from casino.sport_bets as b
left join casino.accounts as a on a.id = b.account_id
left join casino.currency_scale as c on c.code = a.currency;
go
