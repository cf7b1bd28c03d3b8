-- PostgreSQL: the role the connector logs in with. It sees the views and nothing else, and cannot write even by
-- mistake. Run as the owner, on the primary, after the views exist; then give it a password: \password crm_reader
--
-- Adapt: the name, the views you made. The connector polls over one connection; check, backfill and audit open a second. The grants on
-- the views are enough: a view reads its tables with its owner's rights.

create role crm_reader login nosuperuser nocreatedb nocreaterole noreplication connection limit 8;

alter role crm_reader set default_transaction_read_only = on;
alter role crm_reader set statement_timeout = '60s';
alter role crm_reader set idle_in_transaction_session_timeout = '60s';

grant usage on schema crm_export to crm_reader;
grant select on
    crm_export.user_profile,
    crm_export.deposits,
    crm_export.withdrawals,
    crm_export.casino_bets,
    crm_export.casino_bets_separate,
    crm_export.casino_wins,
    crm_export.casino_win_per_bet,
    crm_export.failed_deposits,
    crm_export.bonuses,
    crm_export.sport_bet_open,
    crm_export.sport_bet_selection_open,
    crm_export.sport_bet_settled,
    crm_export.sport_bet_selection_settled,
    crm_export.fx_rates,
    crm_export.erasures,
    crm_export.player_totals
to crm_reader;
