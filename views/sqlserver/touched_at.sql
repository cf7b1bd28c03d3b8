-- SQL Server 2017 or later: users.touched_at, one indexable stamp of "something about this player changed". Run once,
-- as the owner, on the primary.
--
-- user_profile needs dt_update to move whenever any column of the view changes, but those columns lie in several
-- tables, and the greatest of them over a join cannot be indexed. So the table users carries the stamp itself, and
-- triggers on the other tables move it. RECURSIVE_TRIGGERS is off by default: users_touch does not call itself.
-- Adapt: the table names, and one trigger per table that the view reads. Skip this file if your users table already
-- has a column that moves on every change. A rowversion column is no substitute: it is no time.

alter table casino.users add touched_at datetime2 not null constraint users_touched_at default sysutcdatetime();
go

create or alter trigger casino.users_touch on casino.users after update as
if not update(touched_at)
    update u set touched_at = sysutcdatetime() from casino.users as u join inserted as i on i.id = u.id;
go

create or alter trigger casino.profiles_touch on casino.profiles after insert, update, delete as
update casino.users set touched_at = sysutcdatetime()
where id in (select user_id from inserted union select user_id from deleted);
go

create or alter trigger casino.phones_touch on casino.phones after insert, update, delete as
update casino.users set touched_at = sysutcdatetime()
where id in (select user_id from inserted union select user_id from deleted);
go

create or alter trigger casino.users_tags_touch on casino.users_tags after insert, update, delete as
update casino.users set touched_at = sysutcdatetime()
where id in (select user_id from inserted union select user_id from deleted);
go

create or alter trigger casino.users_groups_touch on casino.users_groups after insert, update, delete as
update casino.users set touched_at = sysutcdatetime()
where id in (select user_id from inserted union select user_id from deleted);
go
