"""What a destination holds of players: which names of attributes went, and the hash of what it accepted last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.types.json import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_PROFILES: Final = """
    json_to_recordset(%s) as p(player_id bigint, hash bytea, names text[], unsubscribed boolean) order by player_id
"""
_ACCEPT_PROFILES: Final = f"""
    insert into crm.delivered_profiles (tenant, destination, player_id, hash, names, unsubscribed_by_us)
    select %s, %s, player_id, hash, names, unsubscribed from {_PROFILES}
    on conflict (tenant, destination, player_id) do update set hash = excluded.hash, names = excluded.names,
        unsubscribed_by_us = excluded.unsubscribed_by_us, sent_at = now()
"""
#: Said before it is sent: should nobody learn what became of it, the API may hold these names, and be unsubscribed.
_INTEND_PROFILES: Final = f"""
    insert into crm.delivered_profiles as d (tenant, destination, player_id, names, unsubscribed_by_us)
    select %s, %s, player_id, names, unsubscribed from {_PROFILES}
    on conflict (tenant, destination, player_id) do update set
        names = array(select unnest(d.names) union select unnest(excluded.names)),
        unsubscribed_by_us = d.unsubscribed_by_us or excluded.unsubscribed_by_us
"""
#: Refused: the hash no longer says what the API holds, but what it held before is not forgotten.
_DISTRUST: Final = """
    update crm.delivered_profiles set hash = null
    where tenant = %s and destination = %s and player_id = any(%s)
"""


class Sent(NamedTuple):
    """What a destination holds of a profile, or may hold: see crm.delivered_profiles."""

    player_id: int
    digest: bytes | None
    names: frozenset[str]
    unsubscribed: bool


def intend(connection: psycopg.Connection[Any], tenant: str, destination: str, profiles: Sequence[Sent]) -> None:
    """Note what is about to be sent of players for the first time. Idempotent."""
    if profiles:
        connection.execute(_INTEND_PROFILES, (tenant, destination, _records(profiles)))


def accept(connection: psycopg.Connection[Any], tenant: str, destination: str, profiles: Sequence[Sent]) -> None:
    """Note what was accepted, inside the caller's transaction."""
    if profiles:
        connection.execute(_ACCEPT_PROFILES, (tenant, destination, _records(profiles)))


def distrust(connection: psycopg.Connection[Any], tenant: str, destination: str, player_ids: Sequence[int]) -> None:
    """Note that these players' hashes say nothing any more, inside the caller's transaction."""
    if player_ids:
        connection.execute(_DISTRUST, (tenant, destination, list(player_ids)))


def _records(profiles: Sequence[Sent]) -> Json:
    """Return profiles as one parameter: 120 names of each as arrays would cost more than all else about them.

    A player who changed for two reasons stands there twice, with the same content.
    """
    last = {profile.player_id: profile for profile in profiles}
    return Json(
        [
            {
                "player_id": profile.player_id,
                "hash": None if profile.digest is None else f"\\x{profile.digest.hex()}",
                "names": sorted(profile.names),
                "unsubscribed": profile.unsubscribed,
            }
            for profile in last.values()
        ]
    )
