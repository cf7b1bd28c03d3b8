"""Tenants apart: who reads sees one tenant's rows, and contacts only where that is granted.

crm_app reads what names nobody by contact, crm_contacts everything; both see the rows of one tenant, `app.tenant_id`'s.
crm_writer owns the tables and is not held back by that: COPY is impossible under row-level security.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from connector.errors import Misconfigured

revision = "0008"
down_revision = "0007"

ROLES = ("crm_writer", "crm_app", "crm_contacts")
#: Tables with a column `tenant`, those whose rows belong to a player's tenant, and those of a stream's.
BY_TENANT = (
    *("tenants", "players", "player_wallets", "player_edges", "event_streams", "checkpoints", "quarantine"),
    *("backfill_ranges", "feeds", "delivered_profiles", "parked_events", "dead_letters", "audits", "fx_rates"),
    *("fx_pending", "fx_due", "segments", "player_days", "segment_feed", "segment_due", "player_contacts", "erasures"),
    *("player_consents", "deliveries", "audit_log"),
)
BY_PLAYER = ("player_money", "player_changes", "player_labels", "player_conflicts", "player_totals")
BY_STREAM = ("event_rows",)
#: Columns that only crm_contacts may read: rows and items as they came, and words of an API about them.
PERSONAL: dict[str, tuple[str, ...]] = {
    "player_contacts": (),  # all of it
    "quarantine": ("raw",),
    "dead_letters": ("payload", "message"),
}
_MINE = "(select current_setting('app.tenant_id', true))"
POLICIES = {
    **dict.fromkeys(BY_TENANT, f"tenant = {_MINE}"),
    **{
        table: f"exists (select from crm.players p where p.player_id = {table}.player_id and p.tenant = {_MINE})"
        for table in BY_PLAYER
    },
    **dict.fromkeys(
        BY_STREAM, f"stream_id = any(array(select s.stream_id from crm.event_streams s where s.tenant = {_MINE}))"
    ),
}


#: Who is in a segment, by the index: under row-level security alone `@>` may not be asked of it (it is not leakproof).
MEMBERS = """
create function crm.members(segment integer) returns setof bigint
    language sql stable security definer set search_path = pg_catalog as $$
    select player_id from crm.players
    where tenant = current_setting('app.tenant_id', true) and segment_ids @> array[segment]
$$;
comment on function crm.members is 'The players of a segment of app.tenant_id''s tenant';
alter function crm.members owner to crm_writer;
revoke all on function crm.members from public;
grant execute on function crm.members to crm_app;
"""


def upgrade() -> None:
    """Make the roles, give them the tables, and put a policy on each."""
    _create_roles()
    _guard()
    op.execute(MEMBERS)


def _create_roles() -> None:
    """Roles belong to the whole server: another database may have made them, at this moment even."""
    connection = op.get_bind()
    there = set(connection.execute(sa.text("select rolname from pg_roles where rolname like 'crm%'")).scalars())
    missing = [role for role in ROLES if role not in there]
    allowed = connection.execute(
        sa.text("select rolsuper or rolcreaterole from pg_roles where rolname = current_user")
    ).scalar_one()
    member = all(
        connection.execute(
            sa.text("select pg_has_role(current_user, cast(:role as name), 'usage')"), {"role": role}
        ).scalar_one()
        for role in ROLES
        if role in there
    )
    if not allowed and (missing or not member):
        user = connection.execute(sa.text("select current_user")).scalar_one()
        raise Misconfigured(
            f"the store needs the roles {', '.join(ROLES)}, and {user} may not create them",
            hint="let an administrator run: "
            + "".join(f"create role {role} nologin; " for role in missing)
            + f"grant crm_app to crm_contacts; grant {', '.join(ROLES)} to {user};",
        )
    for role in missing:
        op.execute(
            f"do $$ begin create role {role} nologin; "
            "exception when duplicate_object or unique_violation then null; end $$"
        )
    if not member or missing:
        op.execute(
            f"do $$ begin grant {', '.join(ROLES)} to current_user; exception when unique_violation then null; end $$"
        )
    nested = connection.execute(sa.text("select pg_has_role('crm_contacts', 'crm_app', 'member')")).scalar_one()
    if not nested:
        op.execute("do $$ begin grant crm_app to crm_contacts; exception when unique_violation then null; end $$")


def _guard() -> None:
    op.execute("grant usage on schema crm to crm_writer, crm_app, crm_contacts")
    op.execute("grant create on schema crm to crm_writer")
    for table, policy in POLICIES.items():
        op.execute(f"alter table crm.{table} enable row level security")
        op.execute(f"create policy one_tenant on crm.{table} for select to crm_app, crm_contacts using ({policy})")
        op.execute(f"grant select on crm.{table} to {'crm_contacts' if table in PERSONAL else 'crm_app'}")
    for table, hidden in PERSONAL.items():
        if not hidden:
            continue
        columns = op.get_bind().execute(
            sa.text(
                "select column_name from information_schema.columns where table_schema = 'crm' and table_name = :t"
            ),
            {"t": table},
        )
        shown = sorted(set(columns.scalars()) - set(hidden))
        op.execute(f"grant select ({', '.join(shown)}) on crm.{table} to crm_app")
    op.execute("grant select on crm.event_names to crm_app")
    for table in (*POLICIES, "event_names", "leases"):
        op.execute(f"alter table crm.{table} owner to crm_writer")
    op.execute("alter view crm.events owner to crm_writer")
    for sequence in ("event_seq", "change_seq"):
        op.execute(f"alter sequence crm.{sequence} owner to crm_writer")
    op.execute("alter function crm.refuse_change() owner to crm_writer")
    op.execute("alter function crm.vertical_activity owner to crm_writer")
    op.execute("alter function crm.key_of owner to crm_writer")
    version = op.get_bind().dialect.server_version_info
    if version is not None and version >= (15,):  # before, a view reads as its owner: it is not granted
        op.execute("alter view crm.events set (security_invoker = true)")
        op.execute("grant select on crm.events to crm_app")


def downgrade() -> None:
    """Take policies and grants away; the roles stay, since other databases of the server may use them."""
    op.execute("drop function crm.members")
    op.execute("revoke select on all tables in schema crm from crm_app, crm_contacts")
    for table in POLICIES:
        op.execute(f"drop policy one_tenant on crm.{table}")
        op.execute(f"alter table crm.{table} disable row level security")
