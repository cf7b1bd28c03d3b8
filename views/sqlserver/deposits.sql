-- SQL Server 2017 or later: the stream deposits. Money that arrived, and money taken back; cursor dt_finalized, key
-- transaction_id.
--
-- Adapt: schema, table, brand, and the condition for "succeeded". A declined or pending deposit is no row here. One
-- that succeeded but is still being settled shows with a NULL dt_finalized: it is counted, and read when the stamp is
-- set. Once it is set, the row must never change: a chargeback is a row of its own (is_rollback). Amounts are bigint
-- subunits times the currency's unit, decimal(18, 8), which makes decimal(38, 8): exact. Never use money or float.
-- Base tables: payments, currency_scale as described in views/README.md.

if schema_id(N'crm_export') is null exec(N'create schema crm_export authorization dbo');
go

create or alter view crm_export.deposits as
select
    p.finished_at as dt_finalized,
    cast(N'kaasino' as nvarchar(50)) as ext_brand_id,
    p.user_id as user_ext_id,
    p.id as transaction_id,
    p.created_at as transaction_date,
    p.amount_cents * c.unit as deposit_amount,
    p.currency,
    p.real_balance_cents * c.unit as real_balance,
    p.bonus_balance_cents * c.unit as bonus_balance,
    (p.real_balance_cents + p.bonus_balance_cents) * c.unit as total_balance,
    p.bonus_code as deposit_code,
    p.payment_system as deposit_method,
    p.psp_brand as provider_name,
    cast(case when p.action = 'chargeback' then 1 else 0 end as bit) as is_rollback
from casino.payments as p
left join casino.currency_scale as c on c.code = p.currency
where p.action in ('deposit', 'chargeback') and p.success = 1;
go
