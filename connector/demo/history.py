"""Months of play in seconds: hands the server what people and games look like, and lets it draw the rest itself.

Owns the parameters and the order of the steps; the draws themselves are in history.sql and
sportsbook.sql. It creates neither tables nor
views: casino.py has done so before. The same seed and sizes give the same casino, shifted to the moment of the build.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from psycopg import sql

from connector.demo import games, people, sportsbook

if TYPE_CHECKING:
    import psycopg

_SCRIPTS: Final = tuple(Path(__file__).with_name(name) for name in ("history.sql", "sportsbook.sql"))

#: A hash is a fair die: the same arguments fall the same way whatever the plan or the order of rows.
_DICE: Final = sql.SQL("""
create function pg_temp.dice(id bigint, salt integer) returns double precision language sql immutable as $$
    select (hashint8extended(id, {seed} + salt) & 9007199254740991)::float8 / 9007199254740992::float8
$$;
create function pg_temp.pick(choices anyarray, die double precision) returns anyelement language sql immutable as $$
    select choices[1 + floor(die * cardinality(choices))::int]
$$;
""")

_TABLES: Final = """
create temporary table size (players bigint, rows bigint, anchor timestamp) on commit drop;
create temporary table country (
    code text, share_from float8, share_to float8, language text, currency text,
    women text[], men text[], surnames text[], cities integer
) on commit drop;
create temporary table city (country text, n integer, name text, zone text, prefix text, digits integer) on commit drop;
create temporary table class (
    name text, share_from float8, share_to float8, stakes bigint[], deposits bigint[], weight integer
) on commit drop;
create temporary table pays (name text, steps integer[], factors integer[]) on commit drop;
create temporary table affiliate (n integer, id integer, name text) on commit drop;
create temporary table currency (code text, per_cent bigint) on commit drop;
create temporary table fixture (n integer, sport text, league text, home text, away text) on commit drop;
"""

#: Triggers off, nothing spilled to disk, no time lost to compiling: this is one bulk load.
_SETTINGS: Final = """
set local session_replication_role = replica;
set local work_mem = '256MB';
set local temp_buffers = '256MB';
set local maintenance_work_mem = '128MB';
set local synchronous_commit = off;
set local jit = off;
"""


def fill(connection: psycopg.Connection, *, players: int, bets: int, seed: int) -> None:
    """Fill the empty tables of schema.sql with `players` players and `bets` bets, wins and rollbacks, and analyse them.

    `connection` is the owner's, in autocommit; either everything is there afterwards or nothing. Superuser only, since
    the triggers are off meanwhile.
    """
    with connection.transaction():
        connection.execute(_SETTINGS)
        connection.execute(_DICE.format(seed=sql.Literal(seed * 1000)))
        connection.execute(_TABLES)
        connection.execute(
            "insert into size values (%s, %s, timezone('UTC', now()) - interval '2 seconds')", (players, bets)
        )
        _describe_people(connection)
        _describe_games(connection)
        _describe_fixtures(connection)
        for script in _SCRIPTS:
            connection.execute(script.read_bytes())
    connection.execute("analyze")


def _describe_people(connection: psycopg.Connection) -> None:
    countries, cities, share = [], [], 0
    for c in people.COUNTRIES:
        span = (share / 100, (share + c.share) / 100)
        names = (list(c.women), list(c.men), list(c.surnames))
        countries.append((c.code, *span, c.language, c.currency, *names, len(c.cities)))
        cities += [(c.code, n, t.name, t.zone, t.prefix, t.digits) for n, t in enumerate(c.cities)]
        share += c.share
    with connection.cursor() as cursor:
        cursor.executemany("insert into country values (%s, %s, %s, %s, %s, %s, %s, %s, %s)", countries)
        cursor.executemany("insert into city values (%s, %s, %s, %s, %s, %s)", cities)
        cursor.executemany(
            "insert into affiliate values (%s, %s, %s)", [(n, *who) for n, who in enumerate(people.AFFILIATES)]
        )


def _describe_games(connection: psycopg.Connection) -> None:
    classes, below = [], 0.0
    for name, share in games.CLASSES:
        ladders = (list(games.STAKES[name]), list(games.DEPOSITS[name]))
        classes.append((name, below, share, *ladders, games.WEIGHTS[name]))
        below = share
    pays = [
        (name, [below for table, _, below, _ in games.paytable() if table == name], [factor for _, factor in rows])
        for name, rows in games.PAYS.items()
    ]
    money = [(c.code, c.unit, c.per_cent) for c in games.CURRENCIES.values()]
    with connection.cursor() as cursor:
        cursor.executemany("insert into class values (%s, %s, %s, %s, %s, %s)", classes)
        cursor.executemany("insert into pays values (%s, %s, %s)", pays)
        cursor.executemany("insert into currency values (%s, %s)", [(code, per_cent) for code, _, per_cent in money])
        cursor.executemany("insert into casino.currency_scale values (%s, %s)", [row[:2] for row in money])
        cursor.executemany(
            "insert into casino.games values (%s, %s, %s, %s)",
            [(g.id, g.title, g.provider, g.category) for g in games.GAMES],
        )


def _describe_fixtures(connection: psycopg.Connection) -> None:
    fixtures = [(n, f.sport, f.league, f.home, f.away) for n, f in enumerate(sportsbook.FIXTURES)]
    with connection.cursor() as cursor:
        cursor.executemany("insert into fixture values (%s, %s, %s, %s, %s)", fixtures)
