-- SQL Server 2017 or later: the stream player_totals. What you count of a player's whole life; cursor as_of, key (brand, player).
--
-- Adapt: schema, table, brand, the currency that the amounts are in (leave the column out where it is the connector's
-- base currency), and the totals that you have: leave out the others, never show 0 for what you do not count. as_of is
-- the moment up to which all of a player's transactions are in the row; it moves whenever the row is written.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.player_totals as
select
    t.counted_until as as_of,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    t.user_id as user_ext_id,
    t.currency,
    t.deposits_cents * c.unit as total_deposited,
    t.cashouts_cents * c.unit as total_withdrawn,
    t.bets_cents * c.unit as total_wagered,
    t.wins_cents * c.unit as total_won,
    t.deposits_count as deposit_count,
    t.cashouts_count as withdrawal_count,
    t.bets_count as bet_count
from casino.user_totals as t
left join casino.currency_scale as c on c.code = t.currency;
go
