"""Where each stream began: rows below were never promised, and no audit may call them missing."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; streams that started before it have it null."""
    op.execute("""
        alter table crm.checkpoints add column started_mark numeric;
        comment on column crm.checkpoints.started_mark is
            'only rows above are promised, -2^62: all; null: started before this column, as the configuration says';
    """)


def downgrade() -> None:
    """Take it away again."""
    op.execute("alter table crm.checkpoints drop column started_mark")
