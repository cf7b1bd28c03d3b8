-- PostgreSQL: the stream withdrawals. One row per status a withdrawal reaches; cursor dt_finalized, key
-- (transaction_id, withdrawal_status).
--
-- Adapt: schema, tables, brand, the names of the statuses. If you keep no history of statuses, show one row per
-- finished withdrawal with status COMPLETED instead. Do not show one row whose status changes: that would be read
-- once, in the status it had first.

create schema if not exists crm_export;

create or replace view crm_export.withdrawals as
select
    t.created_at as dt_finalized,
    'kaasino'::text as ext_brand_id,
    p.user_id as user_ext_id,
    t.payment_id as transaction_id,
    t.status as withdrawal_status,
    t.created_at as transaction_date,
    p.amount_cents * c.unit as withdrawal_amount,
    p.currency,
    p.fee_cents * c.unit as fee_amount,
    p.payment_system as withdrawal_method,
    p.psp_brand as provider_name,
    t.reason as decline_reason
from casino.payment_transitions as t
left join casino.payments as p on p.id = t.payment_id
left join casino.currency_scale as c on c.code = p.currency;
