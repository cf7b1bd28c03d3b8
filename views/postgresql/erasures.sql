-- PostgreSQL: the stream erasures. Who asked to be erased: cursor dt_update, key (ext_brand_id, user_ext_id).
--
-- Adapt: schema, table and columns. A row erases for good, in the CRM store and at every destination, and taking the row
-- back brings nobody back: show a request only once it has been decided. The amounts of the account stay. Keep the rows.

create schema if not exists crm_export;

create or replace view crm_export.erasures as
select
    r.requested_at as dt_update,
    r.brand_code as ext_brand_id,
    r.player_id as user_ext_id,
    r.mode
from casino.erasure_requests as r;
