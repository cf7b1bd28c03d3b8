-- MySQL 8 and MariaDB 10.6 or later: the stream user_profile. One row per player, rewritten in place; cursor dt_update,
-- key (ext_brand_id, user_ext_id).
--
-- Adapt: database and table names, the brand (a column, if one database serves several), the account states, and the
-- optional columns from core_username on: leave out what you have not. dt_update must move on every change of any
-- column below, hence users.touched_at: see touched_at.sql. Left joins: a missing profile must not hide a player, and
-- the optimizer must start at the index. No subquery, no DISTINCT, no UNION: only then is the view merged.
-- Base tables: users, profiles, accounts, phones as described in views/README.md; times are DATETIME(6) in UTC.

create database if not exists crm_export;

create or replace algorithm = merge sql security definer view crm_export.user_profile as
select
    u.touched_at as dt_update,
    'kaasino' as ext_brand_id,
    u.id as user_ext_id,
    case u.state
        when 'active' then 'ACTIVE'
        when 'pending' then 'PENDING'
        when 'locked' then 'LOCKED'
        when 'suspended' then 'SUSPENDED'
        when 'blocked' then 'BLOCKED'
        when 'self_excluded' then 'SELF_EXCLUDED'
        when 'closed' then 'DEACTIVATED'
        else upper(u.state)
    end as core_account_status,
    u.created_at as core_registration_date,
    upper(p.language) as core_user_language,
    a.currency as core_wallet_currency,
    u.username as core_username,
    p.date_of_birth as user_birthdate,
    p.country as user_country,
    u.email as user_email,
    p.first_name as user_first_name,
    p.last_name as user_last_name,
    n.number as user_phone,
    u.affiliate_id as core_affiliate_id,
    u.stag as core_affiliate_str,
    p.receive_promos = 0 as core_is_email_disabled_by_platform,
    p.receive_sms_promos = 0 as core_is_sms_disabled_by_platform,
    case p.gender when 'f' then 'FEMALE' when 'm' then 'MALE' else 'UNKNOWN' end as core_user_gender,
    upper(u.kyc_status) as core_kyc_status,
    u.kyc_level as kyc_level,
    u.confirmed_at as email_confirmed_at,
    u.last_sign_in_at as last_login_at,
    u.last_sign_in_country as last_login_country,
    u.self_excluded_until as self_excluded_until,
    u.cooling_off_until as cooling_off_until,
    p.time_zone as timezone,
    u.tag_list as tags,
    u.group_list as `groups`
from casino.users as u
left join casino.profiles as p on p.user_id = u.id
left join casino.accounts as a on a.user_id = u.id and a.main = 1
left join casino.phones as n on n.user_id = u.id and n.active = 1;
