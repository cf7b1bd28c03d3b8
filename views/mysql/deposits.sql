-- MySQL 8 and MariaDB 10.6 or later: the stream deposits. Money that arrived, and money taken back; cursor
-- dt_finalized, key transaction_id.
--
-- Adapt: database, table, brand, and the condition for "succeeded". A declined or pending deposit is no row here. One
-- that succeeded but is still being settled shows with a NULL dt_finalized: it is counted, and read when the stamp is
-- set. Once it is set, the row must never change: a chargeback is a row of its own (is_rollback). Amounts are integer
-- subunits times the currency's unit, a DECIMAL: exact, and in the player's currency.
-- Base tables: payments, currency_scale (code, unit DECIMAL(18,8)) as described in views/README.md.

create database if not exists crm_export;

create or replace algorithm = merge sql security definer view crm_export.deposits as
select
    p.finished_at as dt_finalized,
    'kaasino' as ext_brand_id,
    p.user_id as user_ext_id,
    p.id as transaction_id,
    p.created_at as transaction_date,
    p.amount_cents * c.unit as deposit_amount,
    p.currency as currency,
    p.real_balance_cents * c.unit as real_balance,
    p.bonus_balance_cents * c.unit as bonus_balance,
    (p.real_balance_cents + p.bonus_balance_cents) * c.unit as total_balance,
    p.bonus_code as deposit_code,
    p.payment_system as deposit_method,
    p.psp_brand as provider_name,
    p.action = 'chargeback' as is_rollback
from casino.payments as p
left join casino.currency_scale as c on c.code = p.currency
where p.action in ('deposit', 'chargeback') and p.success = 1;
