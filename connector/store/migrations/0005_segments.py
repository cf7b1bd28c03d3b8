"""Segments, the daily roll-up that their event conditions read, and what is left to look at."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

SEGMENTS = """
create table crm.segments (
    segment_id integer generated always as identity primary key,
    tenant text not null,
    name text not null,
    description text not null default '',
    definition jsonb not null,
    refresh_strategy text not null default 'realtime'
        check (refresh_strategy in ('realtime', 'scheduled', 'on_demand')),
    schedule text not null default '0 4 * * *',
    revision integer not null default 1,
    members bigint,
    refreshed_revision integer,
    refreshed_at timestamptz,
    next_refresh_at timestamptz,
    error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant, name)
);
comment on column crm.segments.revision is
    'raised when the definition changes; refreshed_revision: what members are of';
comment on column crm.segments.next_refresh_at is 'a whole refresh is due then; null: none is';
create index players_segments on crm.players using gin (segment_ids);
create index players_kyc on crm.players (tenant, kyc_status);

create table crm.player_days (
    tenant text not null,
    player_id bigint not null,
    day date not null,
    name_id smallint not null,
    events integer not null,
    total bigint not null default 0,
    least bigint,
    greatest bigint,
    last_at timestamptz,
    last_amount bigint,
    primary key (player_id, day, name_id)
) with (fillfactor = 80);
create index player_days_day on crm.player_days (tenant, name_id, day);
comment on table crm.player_days is
    'Events of a player by day of the reporting time zone and name; amounts are base subunits, without a sign';

create table crm.segment_feed (
    tenant text primary key,
    event_seq bigint not null default 0,
    change_seq bigint not null default 0,
    day date,
    zone text,
    play text[],
    built boolean not null default false
);
comment on table crm.segment_feed is
    'Up to here events are in player_days and their players in segment_due; day: the one whose edges have passed';
comment on column crm.segment_feed.zone is
    'with play: what the days were counted by; where tenants says otherwise they are thrown away and counted anew';
comment on column crm.segment_feed.built is
    'the days have caught up with the ledger once: from then on each player whose events arrive is due';

create table crm.segment_due (
    tenant text not null,
    player_id bigint not null,
    primary key (tenant, player_id)
);
comment on table crm.segment_due is 'Players whose realtime segments are to be looked at';
"""


def upgrade() -> None:
    """Add the tables; nobody is in a segment yet."""
    op.execute(SEGMENTS)


def downgrade() -> None:
    """Take them away again, memberships too."""
    op.execute("drop index crm.players_segments; drop index crm.players_kyc")
    op.execute("update crm.players set segment_ids = default where segment_ids <> '{}'")
    for table in ("segment_due", "segment_feed", "player_days", "segments"):
        op.execute(f"drop table crm.{table}")
