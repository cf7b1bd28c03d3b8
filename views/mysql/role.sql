-- MySQL 8 and MariaDB 10.6 or later: the user the connector logs in with. It sees the views and nothing else. Run as
-- the owner, on the primary, after the views exist. The account is locked until you give it a password of your own:
--
--     alter user 'crm_reader'@'%' identified by '...' account unlock;
--
-- Adapt: the name, the host it may come from, the views you made. The grants on the views are enough: they are SQL
-- SECURITY DEFINER, so they read their tables with their owner's rights. The connector polls over one connection;
-- check, backfill and audit open a second.

create user 'crm_reader'@'%' account lock;

grant select on crm_export.user_profile to 'crm_reader'@'%';
grant select on crm_export.deposits to 'crm_reader'@'%';
grant select on crm_export.withdrawals to 'crm_reader'@'%';
grant select on crm_export.casino_bets to 'crm_reader'@'%';
grant select on crm_export.casino_bets_separate to 'crm_reader'@'%';
grant select on crm_export.casino_wins to 'crm_reader'@'%';
grant select on crm_export.casino_win_per_bet to 'crm_reader'@'%';
grant select on crm_export.failed_deposits to 'crm_reader'@'%';
grant select on crm_export.bonuses to 'crm_reader'@'%';
grant select on crm_export.sport_bet_open to 'crm_reader'@'%';
grant select on crm_export.sport_bet_selection_open to 'crm_reader'@'%';
grant select on crm_export.sport_bet_settled to 'crm_reader'@'%';
grant select on crm_export.sport_bet_selection_settled to 'crm_reader'@'%';
grant select on crm_export.fx_rates to 'crm_reader'@'%';
grant select on crm_export.erasures to 'crm_reader'@'%';
grant select on crm_export.player_totals to 'crm_reader'@'%';
