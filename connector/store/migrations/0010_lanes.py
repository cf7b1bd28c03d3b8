"""Lanes find their next rows by key, whatever the planner knows of tables that have just been filled."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """An event waits once for a destination, and in commit order; the few that wait for a profile have an index apart.

    Profiles are looked for by age in one destination. With the tenant in front the index seemed as good as the primary
    key to a planner without statistics, so that at a first load each profile was looked for among all of them.
    """
    op.execute("""
        alter table crm.parked_events drop constraint parked_events_pkey, add primary key (tenant, destination, seq);
        create index parked_events_waiting on crm.parked_events (tenant, destination, seq) where not history;
        drop index crm.delivered_profiles_tenant_destination_sent_at_idx;
        create index delivered_profiles_sent on crm.delivered_profiles (destination, sent_at);
    """)


def downgrade() -> None:
    """Put the indexes back that were."""
    op.execute("""
        drop index crm.delivered_profiles_sent;
        create index on crm.delivered_profiles (tenant, destination, sent_at);
        drop index crm.parked_events_waiting;
        alter table crm.parked_events
            drop constraint parked_events_pkey, add primary key (tenant, destination, player_id, seq);
    """)
