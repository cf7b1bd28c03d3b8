"""What the law asks for: erasures with their tombstones, superseded consents, what was sent, an audit log."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

LAW = """
alter table crm.players add column erased_at timestamptz;
comment on column crm.players.erased_at is
    'a tombstone: nothing personal is stored of this account again, whoever brings it; its ledger stays';
create index players_erased on crm.players (tenant, brand_id, external_id) where erased_at is not null;

create table crm.erasures (
    erasure_id bigint generated always as identity primary key,
    tenant text not null,
    player_id bigint not null references crm.players,
    mode text not null,
    requested_by text not null,
    requested_at timestamptz not null,
    erased_at timestamptz not null default now(),
    unique (player_id)
);

create table crm.player_consents (
    player_id bigint not null references crm.players,
    tenant text not null,
    kind text not null,
    version integer not null,
    granted boolean not null,
    basis text not null,
    changed_at timestamptz,
    primary key (player_id, kind, version)
);
comment on table crm.player_consents is
    'Superseded superseded consents: given or not, since when, on what basis; players.consents has the current ones';

create table crm.deliveries (
    tenant text not null,
    destination text not null,
    sent_at timestamptz not null default now(),
    player_ids bigint[] not null,
    seqs bigint[] not null
);
create index on crm.deliveries using brin (sent_at);
comment on table crm.deliveries is
    'What a destination accepted, a row a batch: players, and their events beside them (0: the profile)';

create table crm.audit_log (
    tenant text not null,
    entry_id bigint not null,
    at timestamptz not null,
    actor text not null,
    action text not null,
    subject text not null,
    details text not null,
    previous text not null,
    hash text not null,
    primary key (tenant, entry_id)
);
comment on table crm.audit_log is
    'Append-only; hash is sha256 over previous and the entry''s own texts: see store/audit_log.py';
create function crm.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log only grows' using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_log_only_grows before update or delete on crm.audit_log
    for each row execute function crm.refuse_change();
create trigger audit_log_is_not_emptied before truncate on crm.audit_log
    for each statement execute function crm.refuse_change();
"""


def upgrade() -> None:
    """Add the tables; consents that are known become their first version."""
    op.execute(LAW)


def downgrade() -> None:
    """Take them away again, with the audit log."""
    for table in ("audit_log", "deliveries", "player_consents", "erasures"):
        op.execute(f"drop table crm.{table}")
    op.execute("drop function crm.refuse_change()")
    op.execute("drop index crm.players_erased; alter table crm.players drop column erased_at")
