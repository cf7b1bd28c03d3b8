"""The first schema: players and their money, event rows, checkpoints, feeds, leases, quarantine, dead letters."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

PLAYERS = """
create table crm.tenants (
    tenant text primary key,
    base_currency text not null,
    marketing_rules text
);

create table crm.players (
    player_id bigint generated always as identity primary key,
    tenant text not null,
    brand_id text not null,
    external_id text not null,
    status text not null default 'active',
    status_raw text,
    marketable boolean not null default false,
    rg_self_excluded boolean not null default false,
    is_stub boolean not null default false,
    email text,
    phone text,
    telegram_id text,
    username text,
    first_name text,
    last_name text,
    country text,
    language text,
    gender text,
    date_of_birth timestamptz,
    kyc_status text,
    affiliate_id text,
    affiliate_str text,
    email_disabled boolean,
    sms_disabled boolean,
    default_currency_code text,
    tags jsonb,
    groups jsonb,
    traits jsonb not null default '{}',
    total_deposited bigint not null default 0,
    total_withdrawn bigint not null default 0,
    total_wagered bigint not null default 0,
    total_won bigint not null default 0,
    ggr bigint generated always as (total_wagered - total_won) stored,
    bet_count bigint not null default 0,
    session_count bigint not null default 0,
    segment_ids integer[] not null default '{}',
    created_at timestamptz,
    first_seen_at timestamptz,
    last_seen_at timestamptz,
    last_bet_at timestamptz,
    last_deposit_at timestamptz,
    source_updated_at timestamptz,
    deleted_at timestamptz,
    stored_at timestamptz not null default now(),
    unique (tenant, brand_id, external_id)
) with (fillfactor = 70);
comment on table crm.players is
    'One row a casino account; totals are base-currency subunits, rates locked at event time';

create table crm.player_money (
    player_id bigint not null references crm.players,
    currency text not null,
    deposited numeric not null default 0,
    deposit_count bigint not null default 0,
    withdrawn numeric not null default 0,
    withdrawal_count bigint not null default 0,
    wagered numeric not null default 0,
    bet_count bigint not null default 0,
    won numeric not null default 0,
    primary key (player_id, currency)
) with (fillfactor = 70);
comment on table crm.player_money is 'Lifetime totals in the currency of the transactions themselves';

create sequence crm.change_seq;
create table crm.player_changes (
    player_id bigint not null references crm.players,
    reason text not null,
    change_seq bigint not null default nextval('crm.change_seq'),
    changed_at timestamptz not null default now(),
    primary key (player_id, reason)
) with (fillfactor = 70);
create unique index on crm.player_changes (change_seq);
create index on crm.player_changes (change_seq) where reason = 'exclusion';
comment on table crm.player_changes is 'Who changed in a way that a destination can see; change_seq is commit order';
"""

EVENTS = """
create table crm.event_streams (
    stream_id smallint generated always as identity primary key,
    tenant text not null,
    source text not null,
    stream text not null,
    generation integer not null,
    brand_id text not null,
    unique (tenant, source, stream, generation, brand_id)
);

create table crm.event_names (
    name_id smallint primary key,
    name text not null unique
);

create sequence crm.event_seq;
create table crm.event_rows (
    seq bigint not null default nextval('crm.event_seq'),
    player_id bigint not null,
    occurred_at timestamptz not null,
    amount_base bigint,
    stream_id smallint not null,
    name_id smallint not null,
    effect smallint not null,
    history boolean not null,
    key text collate "C" not null,
    transaction_id text collate "C",
    currency text collate "C",
    amount numeric,
    fx_rate_locked numeric,
    stake numeric,
    stake_base bigint,
    properties json not null
);
create unique index event_rows_seq on crm.event_rows (seq);
create unique index event_rows_key on crm.event_rows (stream_id, key, name_id);
comment on column crm.event_rows.effect is
    'what amount adds to: 1 deposited, 2 withdrawn, 3 wagered, 4 won, 0 nothing; '
    'minus takes back; stake is wagered too';
comment on table crm.event_rows is
    'One row an event; transaction_id is null where it equals the key; seq is commit order';

create view crm.events as
select e.seq, s.tenant, s.source, s.stream, s.generation, s.brand_id, p.external_id, e.player_id,
       coalesce(e.transaction_id, e.key) as transaction_id, n.name, e.occurred_at, e.amount, e.currency,
       e.amount_base, t.base_currency, e.fx_rate_locked, e.history, e.properties::jsonb as properties, e.key
from crm.event_rows e
join crm.event_streams s using (stream_id)
join crm.event_names n using (name_id)
join crm.players p using (player_id)
join crm.tenants t on t.tenant = s.tenant;

create table crm.fx_pending (
    seq bigint primary key,
    player_id bigint not null,
    since timestamptz not null default now()
);
create index on crm.fx_pending (player_id);
comment on table crm.fx_pending is 'Events without a base amount: their currency or its rate is not known yet';
"""

POSITIONS = """
create table crm.checkpoints (
    tenant text not null,
    source text not null,
    stream text not null,
    generation integer not null default 0,
    cursor_column text not null default '',
    key_columns text[] not null default '{}',
    servers text[] not null default '{}',
    seen_cursor text, seen_key text[], seen_mark numeric,
    sealed_cursor text, sealed_key text[], sealed_mark numeric,
    history_until numeric,
    state text not null default 'running',
    error text,
    rows bigint not null default 0,
    null_cursors bigint not null default 0,
    future_rows bigint not null default 0,
    lag_seconds double precision,
    started_at timestamptz not null default now(),
    polled_at timestamptz,
    primary key (tenant, source, stream)
);
comment on table crm.checkpoints is
    'seen: highest position read; sealed: nothing at or below can still appear; no servers: not started yet';

create table crm.leases (
    name text primary key,
    holder text not null,
    epoch bigint not null default 1,
    expires_at timestamptz not null,
    pids integer[] not null default '{}'
);

create table crm.quarantine (
    id bigint generated always as identity primary key,
    tenant text not null,
    source text not null,
    stream text not null,
    reason text not null,
    field text not null default '',
    row_key text not null default '',
    transaction_id text,
    brand_id text,
    external_id text,
    kept boolean not null default false,
    raw jsonb not null,
    seen_count bigint not null default 1,
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    unique (tenant, source, stream, row_key, reason, field)
);
comment on column crm.quarantine.kept is 'true: only the field was lost, the row went on';

create table crm.backfill_ranges (
    range_id bigint generated always as identity primary key,
    tenant text not null,
    source text not null,
    stream text not null,
    job text not null,
    ordinal integer not null,
    from_cursor text,
    until_cursor text,
    at_cursor text, at_key text[], at_mark numeric,
    rows bigint not null default 0,
    done_at timestamptz,
    unique (tenant, source, stream, job, ordinal)
);
"""

DELIVERY = """
create table crm.feeds (
    tenant text not null,
    destination text not null,
    lane integer not null,
    lanes integer not null,
    event_seq bigint not null default 0,
    change_seq bigint not null default 0,
    accepted bigint not null default 0,
    refused bigint not null default 0,
    dropped bigint not null default 0,
    expired bigint not null default 0,
    state text not null default 'running',
    error text,
    delivered_at timestamptz,
    primary key (tenant, destination, lane)
);
comment on table crm.feeds is 'Where each lane of each destination stands; lane -1 carries exclusions';

create table crm.delivered_profiles (
    tenant text not null,
    destination text not null,
    player_id bigint not null,
    hash bytea,
    names text[] not null default '{}',
    unsubscribed_by_us boolean not null default false,
    sent_at timestamptz not null default now(),
    primary key (tenant, destination, player_id)
) with (fillfactor = 70);

create table crm.parked_events (
    tenant text not null,
    destination text not null,
    player_id bigint not null,
    seq bigint not null,
    history boolean not null default false,
    parked_at timestamptz not null default now(),
    primary key (tenant, destination, player_id, seq)
);
create index on crm.delivered_profiles (tenant, destination, sent_at);
comment on table crm.parked_events is 'Events that wait: for their player''s profile, or (history) to trigger nothing';

create table crm.dead_letters (
    id bigint generated always as identity primary key,
    tenant text not null,
    destination text not null,
    player_id bigint,
    seq bigint,
    kind text not null,
    name text,
    reason text not null,
    field text,
    message text,
    payload jsonb not null,
    refused_at timestamptz not null default now()
);
"""


def upgrade() -> None:
    """Create everything. The schema itself stands already: Alembic keeps its version table in it."""
    for statements in (PLAYERS, EVENTS, POSITIONS, DELIVERY):
        op.execute(statements)


def downgrade() -> None:
    """Drop everything but the schema."""
    op.execute("drop view crm.events")
    for table in (
        *("dead_letters", "parked_events", "delivered_profiles", "feeds", "backfill_ranges", "quarantine", "leases"),
        *("checkpoints", "fx_pending", "event_rows", "event_names", "event_streams", "player_changes", "player_money"),
        *("players", "tenants"),
    ):
        op.execute(f"drop table crm.{table}")
    op.execute("drop sequence crm.event_seq; drop sequence crm.change_seq")
