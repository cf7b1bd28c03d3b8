-- MySQL 8 and MariaDB 10.6 or later: the streams user_tags and user_groups. One row per player and
-- label, rewritten in place; cursor dt_update, key (ext_brand_id, user_ext_id, tag or group_code).
--
-- Adapt: schema and table names, the brand. Only for labels that are kept as rows with a stamp of their own; leave this
-- file out where user_profile shows tags and groups: what it shows wins. A label that is taken away must stay as a row
-- with is_deleted set and dt_update moved on: of a row that vanishes nobody hears. The indexes are part of this file.
-- Base tables: users_tags, users_groups as described in views/README.md, with updated_at and removed.

create database if not exists crm_export;

create or replace algorithm = merge sql security definer view crm_export.user_tags as
select
    t.updated_at as dt_update,
    'kaasino' as ext_brand_id,
    t.user_id as user_ext_id,
    t.name as tag,
    t.removed as is_deleted
from casino.users_tags as t;

create or replace algorithm = merge sql security definer view crm_export.user_groups as
select
    g.updated_at as dt_update,
    'kaasino' as ext_brand_id,
    g.user_id as user_ext_id,
    g.code as group_code,
    g.removed as is_deleted
from casino.users_groups as g;

create index users_tags_crm on casino.users_tags (updated_at, user_id, name);

create index users_groups_crm on casino.users_groups (updated_at, user_id, code);

grant select on crm_export.user_tags to 'crm_reader'@'%';
grant select on crm_export.user_groups to 'crm_reader'@'%';
