-- MySQL 8 and MariaDB 10.6 or later: users.touched_at, one indexable stamp of "something about this player changed",
-- and the player's tags and groups as JSON texts beside it. Run once, as the owner, on the primary.
--
-- user_profile needs dt_update to move whenever any column of the view changes, but those columns lie in several
-- tables, and GREATEST() over a join cannot be indexed. So the table users carries the stamp, and triggers on the other
-- tables move it. The same triggers keep the lists: a subquery in the view's select list would make MySQL build the
-- whole view in a temporary table at every poll.
-- Adapt: the table names, and three triggers per table that the view reads. Skip what you have already.

alter table casino.users
    add column touched_at datetime(6) not null default '1970-01-01 00:00:00',
    add column tag_list varchar(4000) not null default '[]',
    add column group_list varchar(4000) not null default '[]';

update casino.users as u set
    touched_at = u.updated_at,
    tag_list = coalesce((select json_arrayagg(t.name) from casino.users_tags as t where t.user_id = u.id), '[]'),
    group_list = coalesce((select json_arrayagg(g.code) from casino.users_groups as g where g.user_id = u.id), '[]');

create trigger casino.users_touch_insert before insert on casino.users
    for each row set new.touched_at = utc_timestamp(6);
create trigger casino.users_touch_update before update on casino.users
    for each row set new.touched_at = utc_timestamp(6);

create trigger casino.profiles_touch_insert after insert on casino.profiles
    for each row update casino.users set touched_at = utc_timestamp(6) where id = new.user_id;
create trigger casino.profiles_touch_update after update on casino.profiles
    for each row update casino.users set touched_at = utc_timestamp(6) where id = new.user_id;

create trigger casino.phones_touch_insert after insert on casino.phones
    for each row update casino.users set touched_at = utc_timestamp(6) where id = new.user_id;
create trigger casino.phones_touch_update after update on casino.phones
    for each row update casino.users set touched_at = utc_timestamp(6) where id = new.user_id;
create trigger casino.phones_touch_delete after delete on casino.phones
    for each row update casino.users set touched_at = utc_timestamp(6) where id = old.user_id;

create trigger casino.users_tags_touch_insert after insert on casino.users_tags
    for each row update casino.users as u set u.tag_list =
        (select json_arrayagg(t.name) from casino.users_tags as t where t.user_id = new.user_id)
    where u.id = new.user_id;
create trigger casino.users_tags_touch_delete after delete on casino.users_tags
    for each row update casino.users as u set u.tag_list =
        coalesce((select json_arrayagg(t.name) from casino.users_tags as t where t.user_id = old.user_id), '[]')
    where u.id = old.user_id;

create trigger casino.users_groups_touch_insert after insert on casino.users_groups
    for each row update casino.users as u set u.group_list =
        (select json_arrayagg(g.code) from casino.users_groups as g where g.user_id = new.user_id)
    where u.id = new.user_id;
create trigger casino.users_groups_touch_delete after delete on casino.users_groups
    for each row update casino.users as u set u.group_list =
        coalesce((select json_arrayagg(g.code) from casino.users_groups as g where g.user_id = old.user_id), '[]')
    where u.id = old.user_id;
