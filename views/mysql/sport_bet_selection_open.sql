-- MySQL 8 and MariaDB 10.6 or later: the stream sport_bet_selection_open: what each bet was placed on, a row per
-- selection; cursor id, key id.
--
-- Adapt: database, tables, brand; leave out the optional columns you have not, from event_id on. The id must grow with
-- time and be the primary key. The player is looked up through the bet: commit both together, or the bet first.
-- Base tables: sport_bet_selections, sport_bets, accounts as described in views/README.md.

create database if not exists crm_export;

create or replace algorithm = merge sql security definer view crm_export.sport_bet_selection_open as
select
    s.id as id,
    'kaasino' as ext_brand_id,
    a.user_id as user_ext_id,
    s.bet_id as bet_id,
    s.id as selection_id,
    s.created_at as bet_date,
    s.event_id as event_id,
    s.event_title as event_name,
    s.sport as sport_type,
    s.league as league,
    s.market as market,
    s.outcome as outcome,
    s.odds as odds,
    s.home_team as home_team,
    s.away_team as away_team,
    s.live as is_live,
    s.event_starts_at as event_start
from casino.sport_bet_selections as s
left join casino.sport_bets as b on b.id = s.bet_id
left join casino.accounts as a on a.id = b.account_id;
