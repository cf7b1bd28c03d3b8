-- SQL Server 2017 or later: the login and user the connector reads with. It sees the views and nothing else. Run as the
-- owner, on the primary, after the views exist, with a password of your own:
--
--     sqlcmd -v crm_password="..." -i role.sql
--
-- Adapt: the name, the database, the views you made. The grants on the views are enough as long as the schemas casino
-- and crm_export have one owner (ownership chaining). For a readable secondary create the login there with the same
-- SID. The connector polls over one connection; check, backfill and audit open a second.

create login crm_reader with password = '$(crm_password)', check_policy = on;
go

create user crm_reader for login crm_reader with default_schema = crm_export;
go

grant select on crm_export.user_profile to crm_reader;
grant select on crm_export.deposits to crm_reader;
grant select on crm_export.withdrawals to crm_reader;
grant select on crm_export.casino_bets to crm_reader;
grant select on crm_export.casino_bets_separate to crm_reader;
grant select on crm_export.casino_wins to crm_reader;
grant select on crm_export.casino_win_per_bet to crm_reader;
grant select on crm_export.failed_deposits to crm_reader;
grant select on crm_export.bonuses to crm_reader;
grant select on crm_export.sport_bet_open to crm_reader;
grant select on crm_export.sport_bet_selection_open to crm_reader;
grant select on crm_export.sport_bet_settled to crm_reader;
grant select on crm_export.sport_bet_selection_settled to crm_reader;
grant select on crm_export.fx_rates to crm_reader;
grant select on crm_export.erasures to crm_reader;
grant select on crm_export.player_totals to crm_reader;
go
