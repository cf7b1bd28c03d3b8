-- PostgreSQL: the stream fx_rates. What a currency is worth in the base currency from when on;
-- cursor dt_update, key (base, currency, valid_from).
--
-- Adapt: schema, table, and the direction: rate is how many units of base one unit of currency is worth. If your table
-- says it the other way round (units of currency for one unit of base), show the inverse here, with many decimals. A row
-- may be corrected, and moves dt_update then; amounts that were locked before stay as they are.

create schema if not exists crm_export;

create or replace view crm_export.fx_rates as
select
    r.updated_at as dt_update,
    r.base_code as base,
    r.code as currency,
    r.valid_from,
    r.rate
from casino.exchange_rates as r;
