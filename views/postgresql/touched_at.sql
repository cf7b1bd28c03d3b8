-- PostgreSQL: users.touched_at, one indexable stamp of "something about this player changed". Run once, as the owner.
--
-- user_profile needs dt_update to move whenever any column of the view changes, but those columns lie in several
-- tables, and greatest(users.updated_at, profiles.updated_at, ...) over a join cannot be indexed. So the table users
-- carries the stamp itself, and small triggers on the other tables move it.
-- Adapt: the table names, and one trigger per table that the view reads. Skip this file if your users table already
-- has a column that moves on every change.

alter table casino.users add column if not exists touched_at timestamp not null default timezone('UTC', now());

create or replace function casino.touch_self() returns trigger language plpgsql as $$
begin
    new.touched_at := timezone('UTC', clock_timestamp());
    return new;
end $$;

create or replace function casino.touch_user() returns trigger language plpgsql as $$
begin
    update casino.users set updated_at = timezone('UTC', clock_timestamp())
    where id = coalesce(new.user_id, old.user_id);
    return null;
end $$;

create or replace trigger touch_self before insert or update on casino.users
    for each row execute function casino.touch_self();
create or replace trigger touch_user after insert or update or delete on casino.profiles
    for each row execute function casino.touch_user();
create or replace trigger touch_user after insert or update or delete on casino.phones
    for each row execute function casino.touch_user();
create or replace trigger touch_user after insert or update or delete on casino.users_tags
    for each row execute function casino.touch_user();
create or replace trigger touch_user after insert or update or delete on casino.users_groups
    for each row execute function casino.touch_user();
