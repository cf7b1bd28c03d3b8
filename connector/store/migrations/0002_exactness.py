"""What proves that nothing is missing: each row's mark, samples of sealed rows, results of audits."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

MARKS = """
alter table crm.event_rows add column mark bigint;
comment on column crm.event_rows.mark is
    'the row''s cursor as an integer: the id, or nanoseconds since 1970; null in rows stored before this column';
create index event_rows_mark on crm.event_rows using brin (stream_id, mark int8_minmax_multi_ops);
alter table crm.quarantine add column mark bigint;
create index on crm.players (tenant, source_updated_at);
"""

CHECKPOINTS = """
alter table crm.checkpoints
    add column revision integer not null default 0,
    add column samples jsonb not null default '[]',
    add column answer text,
    add column lateness double precision,
    add column widened_at timestamptz,
    add column late_rows bigint not null default 0;
comment on column crm.checkpoints.revision is
    'raised by every answer of a person: a daemon that read an older one opens the stream again';
comment on column crm.checkpoints.samples is 'some sealed rows, newest first: are they still there?';
comment on column crm.checkpoints.answer is 'wait: the server is known not to hold the data yet';
comment on column crm.checkpoints.lateness is 'seconds that the window has widened to; null: as configured';
"""

AUDITS = """
create table crm.audits (
    audit_id bigint generated always as identity primary key,
    tenant text not null,
    source text not null,
    stream text not null,
    kind text not null,
    from_mark numeric,
    until_mark numeric,
    rows bigint not null default 0,
    missing bigint not null default 0,
    repaired bigint not null default 0,
    gone bigint not null default 0,
    changed bigint not null default 0,
    error text,
    started_at timestamptz not null default now(),
    finished_at timestamptz
);
create index on crm.audits (tenant, source, stream, kind, audit_id desc);
comment on table crm.audits is
    'source against store: missing here, of those repaired, gone at the source, changed under the same key';
"""


def upgrade() -> None:
    """Add columns and tables; rows that are there stay as they are."""
    for statements in (MARKS, CHECKPOINTS, AUDITS):
        op.execute(statements)


def downgrade() -> None:
    """Take them away again."""
    op.execute("drop table crm.audits")
    for column in ("revision", "samples", "answer", "lateness", "widened_at", "late_rows"):
        op.execute(f"alter table crm.checkpoints drop column {column}")
    op.execute("drop index crm.players_tenant_source_updated_at_idx")
    op.execute("alter table crm.quarantine drop column mark")
    op.execute("alter table crm.event_rows drop column mark")
