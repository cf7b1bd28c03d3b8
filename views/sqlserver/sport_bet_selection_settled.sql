-- SQL Server 2017 or later: the stream sport_bet_selection_settled: how each selection ended; cursor id, key id.
--
-- Adapt: schema, tables, brand. The id must grow with time and be the primary key. The player is looked up through
-- selection and bet. A result that is corrected is a second row.
-- Base tables: sport_selection_results, sport_bet_selections, sport_bets, accounts as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.sport_bet_selection_settled as
select
    r.id,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    a.user_id as user_ext_id,
    s.bet_id,
    r.selection_id,
    r.created_at as settled_at,
    r.status as selection_status,
    r.score
from casino.sport_selection_results as r
left join casino.sport_bet_selections as s on s.id = r.selection_id
left join casino.sport_bets as b on b.id = s.bet_id
left join casino.accounts as a on a.id = b.account_id;
go
