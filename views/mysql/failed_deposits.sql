-- MySQL 8 and MariaDB 10.6 or later: the stream failed_deposits: attempts that brought no money; cursor dt_finalized,
-- key transaction_id.
--
-- Adapt: database, table, brand, and the condition for "failed". Without a status every row is a failed attempt. If you
-- also show those under way, show one row per status they reach, as in withdrawals.sql, with the columns status
-- (FAILED, CANCELLED, PENDING) and its time as dt_finalized: the key is (transaction_id, status) then. Never show
-- deposits that succeeded: they are rows of deposits.
-- Base tables: payments, currency_scale as described in views/README.md.

create database if not exists crm_export;

create or replace algorithm = merge sql security definer view crm_export.failed_deposits as
select
    p.finished_at as dt_finalized,
    'kaasino' as ext_brand_id,
    p.user_id as user_ext_id,
    p.id as transaction_id,
    p.created_at as transaction_date,
    p.amount_cents * c.unit as deposit_amount,
    p.currency as currency,
    p.decline_reason as decline_reason,
    p.payment_system as deposit_method,
    p.psp_brand as provider_name
from casino.payments as p
left join casino.currency_scale as c on c.code = p.currency
where p.action = 'deposit' and p.success = 0;
