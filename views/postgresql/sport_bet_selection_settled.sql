-- PostgreSQL: the stream sport_bet_selection_settled: how each selection ended; cursor id, key id.
--
-- Adapt: schema, tables, brand. The id must grow with time and be the primary key. The player is looked up through
-- selection and bet. A result that is corrected is a second row.

create schema if not exists crm_export;

create or replace view crm_export.sport_bet_selection_settled as
select
    r.id,
    'kaasino'::text as ext_brand_id,
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
