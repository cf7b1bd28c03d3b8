-- SQL Server 2017 or later: the stream user_profile. One row per player, rewritten in place; cursor dt_update, key
-- (ext_brand_id, user_ext_id).
--
-- Adapt: schema and table names, the brand (a column, if one database serves several), the account states, and the
-- optional columns from core_username on: leave out what you have not. dt_update must move on every change of any
-- column below, hence users.touched_at: see touched_at.sql. Left joins: a missing profile must not hide a player.
-- Base tables: users, profiles, accounts, phones, users_tags, users_groups as described in views/README.md; times are
-- datetime2 in UTC (datetime rounds to 3.33 ms: the cursor works, with more ties).

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.user_profile as
select
    u.touched_at as dt_update,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
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
    cast(case p.receive_promos when 0 then 1 when 1 then 0 end as bit) as core_is_email_disabled_by_platform,
    cast(case p.receive_sms_promos when 0 then 1 when 1 then 0 end as bit) as core_is_sms_disabled_by_platform,
    case p.gender when 'f' then 'FEMALE' when 'm' then 'MALE' else 'UNKNOWN' end as core_user_gender,
    upper(u.kyc_status) as core_kyc_status,
    u.kyc_level,
    u.confirmed_at as email_confirmed_at,
    u.last_sign_in_at as last_login_at,
    u.last_sign_in_country as last_login_country,
    u.self_excluded_until,
    u.cooling_off_until,
    p.time_zone as timezone,
    isnull((
        select concat('["', string_agg(string_escape(cast(t.name as nvarchar(max)), 'json'), '","'), '"]')
        from casino.users_tags as t where t.user_id = u.id having count(*) > 0
    ), '[]') as tags,
    isnull((
        select concat('["', string_agg(string_escape(cast(g.code as nvarchar(max)), 'json'), '","'), '"]')
        from casino.users_groups as g where g.user_id = u.id having count(*) > 0
    ), '[]') as [groups]
from casino.users as u
left join casino.profiles as p on p.user_id = u.id
left join casino.accounts as a on a.user_id = u.id and a.main = 1
left join casino.phones as n on n.user_id = u.id and n.active = 1;
go
