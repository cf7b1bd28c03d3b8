"""Jobs of `backfill`: how far each range has come in numbers, and whether what was loaded has been verified."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns; ranges made before have no marks."""
    op.execute("""
        alter table crm.backfill_ranges
            add column from_mark numeric, add column until_mark numeric, add column verified_at timestamptz;
        comment on column crm.backfill_ranges.from_mark is
            'from_cursor as an integer (the id, or nanoseconds since 1970): marks tell what share of a job is done';
        comment on column crm.backfill_ranges.verified_at is
            'when source and store were compared over the whole job and agreed; null: not yet';
    """)


def downgrade() -> None:
    """Take them away again."""
    op.execute("""
        alter table crm.backfill_ranges drop column from_mark, drop column until_mark, drop column verified_at;
    """)
