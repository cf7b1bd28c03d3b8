"""A store brought to any revision of its schema: what a migration does to rows that are there."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.config import Config as AlembicConfig
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from connector.store import database


def at_revision(url: str, revision: str) -> None:
    """Bring a store to a revision, up or down."""
    folder = str(database.MIGRATIONS)
    script = ScriptDirectory(folder, version_locations=[folder])
    order = [item.revision for item in script.walk_revisions()][::-1]

    def steps(now: Any, _: Any) -> Any:
        down = bool(now) and order.index(now[0]) > order.index(revision)
        return script._downgrade_revs(revision, now) if down else script._upgrade_revs(revision, now)

    context = EnvironmentContext(AlembicConfig(), script, fn=steps)
    engine = sa.create_engine("postgresql+psycopg://" + url.partition("://")[2], poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("create schema if not exists crm"))
        context.configure(connection=connection, version_table_schema="crm", version_table="schema_version")
        context.run_migrations()
    engine.dispose()
