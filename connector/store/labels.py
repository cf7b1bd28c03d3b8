"""Tags and groups that come one by one: the newest word of each is kept, and the player's list made of it.

Where `user_profile` tells a player's tags itself, what is said here is kept and not shown; groups likewise. Inside THE
transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.store import players
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg

_KEY: Final = ["brand_id", "external_id", "kind", "label"]
_STAGED: Final = ("player_id", "kind", "label", "present", "updated_at")
_STAGE: Final = """
    create temporary table if not exists stage_labels (
        player_id bigint, kind text, label text, present boolean, updated_at timestamptz
    ) on commit delete rows
"""
_WRITE: Final = """
    insert into crm.player_labels as l (player_id, kind, label, present, updated_at)
    select player_id, kind, label, present, updated_at from pg_temp.stage_labels order by 1, 2, 3
    on conflict (player_id, kind, label) do update set present = excluded.present, updated_at = excluded.updated_at
    where excluded.updated_at > l.updated_at
       or (excluded.updated_at = l.updated_at and excluded.present <> l.present and %(production)s)
    returning player_id
"""
#: A list that nothing was ever said about stays as it is.
_LIST: Final = """
    with listed as (
        select player_id, jsonb_agg(label order by label collate "C") filter (where kind = 'tag' and present) as tags,
               jsonb_agg(label order by label collate "C") filter (where kind = 'group' and present) as groups,
               bool_or(kind = 'tag') as tagged, bool_or(kind = 'group') as grouped
        from crm.player_labels where player_id = any(%(player_ids)s) group by player_id
    ), next as (
        select player_id,
               case when tagged and not p.tags_in_profile then coalesce(l.tags, '[]') else p.tags end as tags,
               case when grouped and not p.groups_in_profile then coalesce(l.groups, '[]') else p.groups end as groups
        from listed l join crm.players p using (player_id)
    )
    update crm.players p set tags = n.tags, groups = n.groups from next n
    where n.player_id = p.player_id and (n.tags, n.groups) is distinct from (p.tags, p.groups)
    returning p.player_id
"""


def write(
    connection: psycopg.Connection[Any], tenant: str, labels: pl.DataFrame, *, production: bool, at: datetime
) -> int:
    """Store what a page says of labels and judge the players it changes, as of `at`; returns how many those are.

    Idempotent. Of two words of one stamp the production reader's wins: it read the later snapshot. A player never seen
    before becomes a stub, whose lists wait for the profile.
    """
    latest = labels.sort("updated_at", maintain_order=True).unique(_KEY, keep="last", maintain_order=True)
    resolved = players.resolve(connection, tenant, latest).filter(~pl.col("player_erased"))
    connection.execute(_STAGE)
    copy_frame(connection, f"pg_temp.stage_labels ({', '.join(_STAGED)})", resolved.select_seq(_STAGED))
    written = connection.execute(_WRITE, {"production": production}).fetchall()
    connection.execute("delete from pg_temp.stage_labels")
    touched = sorted({player_id for (player_id,) in written})
    if not touched:
        return 0
    changed = [player_id for (player_id,) in connection.execute(_LIST, {"player_ids": touched}).fetchall()]
    players.mark(connection, changed, "profile")
    players.judge_by_rules(connection, tenant, changed, at)
    return len(changed)
