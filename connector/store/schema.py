"""The store's schema, brought up to date by Alembic. Loaded where it is not (see database.migrate)."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from connector.errors import Misconfigured
from connector.store.database import CONNECT_SECONDS, MIGRATIONS, classify, first_line

OLDEST_VERSION: Final = 140000


def upgrade(url: str) -> None:
    """Run the revisions that the store of this address lacks, in one transaction; safe for two processes at once."""
    engine = sa.create_engine(
        "postgresql+psycopg://" + url.partition("://")[2],
        poolclass=sa.pool.NullPool,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )
    script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    context = EnvironmentContext(Config(), script, fn=lambda revision, _: script._upgrade_revs("head", revision))  # noqa: SLF001
    try:
        with engine.begin() as connection:
            _refuse_old_servers(connection)
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('crm.migrate', 0))"))
            connection.execute(sa.text("create schema if not exists crm"))
            context.configure(connection=connection, version_table_schema="crm", version_table="schema_version")
            context.run_migrations()
    except (sa.exc.OperationalError, sa.exc.InternalError) as error:  # the latter: a server that may not be written
        raise classify(error.orig or error) from error
    except sa.exc.ProgrammingError as error:
        raise Misconfigured(
            f"the store's schema can't be created: {first_line(error.orig or error)}",
            hint="grant create on the database to the connector's role",
        ) from error
    finally:
        engine.dispose()


def _refuse_old_servers(connection: sa.Connection) -> None:
    version = int(connection.execute(sa.text("show server_version_num")).scalar_one())
    if version < OLDEST_VERSION:
        raise Misconfigured(f"the store runs PostgreSQL {version // 10000}", hint="it needs 14 or newer")
