-- SQL Server 2017 or later: the stream bonuses: one row per status that a bonus reaches; cursor id, key id.
--
-- Adapt: schema, tables, brand, the names of the statuses: ISSUED, ACTIVE, WAGER_DONE, LOST, CANCELLED, EXPIRED, and
-- WAGERED for a step on the way. The id is that of the change of status, not of the bonus. If you keep no history of
-- statuses, show the issued bonuses with status ISSUED. Do not show one row whose status changes: that would be read
-- once, in the status it had first.
-- Base tables: bonus_transitions, bonus_issues, accounts, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.bonuses as
select
    t.id,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    a.user_id as user_ext_id,
    t.bonus_issue_id as bonus_id,
    t.status,
    t.created_at as bonus_date,
    b.strategy as bonus_type,
    b.title as bonus_name,
    b.amount_cents * c.unit as bonus_amount,
    a.currency,
    b.wager_requirement_cents * c.unit as wager_requirement,
    t.wagered_cents * c.unit as wagered_amount,
    b.valid_until as expires_at,
    cast(case when b.freespins > 0 then 1 else 0 end as bit) as is_freespin,
    b.freespins as spins
from casino.bonus_transitions as t
left join casino.bonus_issues as b on b.id = t.bonus_issue_id
left join casino.accounts as a on a.id = b.account_id
left join casino.currency_scale as c on c.code = a.currency;
go
