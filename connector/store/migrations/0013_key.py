"""The index that keeps each row once begins with the key: what differs is compared first."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

_REBUILD = """
    drop index crm.event_rows_key;
    create unique index event_rows_key on crm.event_rows ({columns});
"""


def upgrade() -> None:
    """A tenth of the time that a page's rows take: the stream is the same in all of them."""
    op.execute(_REBUILD.format(columns="key, stream_id, name_id"))


def downgrade() -> None:
    """As it was."""
    op.execute(_REBUILD.format(columns="stream_id, key, name_id"))
