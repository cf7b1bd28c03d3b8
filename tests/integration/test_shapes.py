"""Values in the ledger, their names once beside it: whoever reads events sees them by name, as ever."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.integration.revisions import at_revision

if TYPE_CHECKING:
    from connector.store.database import Database

Writer = Any
Look = Any
SHAPE: Final = ("method", "fee", "note")


def deposits(*texts: str, start: int = 0) -> list[dict[str, Any]]:
    values = [text.replace("|", "\x1f") for text in texts]
    return [
        {"key": f"k{start + n}", "external_id": "7", "properties": None, "packed": text}
        for n, text in enumerate(values)
    ]


def shown(look: Look) -> dict[str, Any]:
    return {row["key"]: row["properties"] for row in look("select key, properties from crm.events order by seq")}


def test_values_are_shown_by_their_names(writer: Writer, look: Look) -> None:
    """Nulls are left out; an event that names its own values, or has none, is shown as it is."""
    writer.events(*deposits('card|0.10|a "b" \\ \tü', "card||x", "", "||"), shape=SHAPE)
    writer.events({"key": "own", "external_id": "7", "properties": '{"bank":"B"}'})
    assert shown(look) == {
        "k0": {"method": "card", "fee": "0.10", "note": 'a "b" \\ \tü'},
        "k1": {"method": "card", "note": "x"},
        "k2": {},
        "k3": {},
        "own": {"bank": "B"},
    }


def test_a_shape_stands_once_and_another_beside_it(writer: Writer, look: Look) -> None:
    """Each page says what its values mean, so a view may get a column, or lose one, at any time."""
    writer.events(*deposits("card"), shape=SHAPE)
    writer.events(*deposits("cash", start=1), shape=SHAPE)
    writer.events(*deposits("1|cash", start=2), shape=("shop", "method"))
    assert [row["names"] for row in look("select names from crm.event_shapes order by shape_id")] == [
        [*SHAPE],
        ["shop", "method"],
    ]
    assert shown(look) == {"k0": {"method": "card"}, "k1": {"method": "cash"}, "k2": {"shop": "1", "method": "cash"}}


def test_a_view_may_have_any_number_of_columns(writer: Writer, look: Look) -> None:
    """Hundreds of long names are one shape too, and it is found again."""
    shape = tuple(hashlib.sha256(str(n).encode()).hexdigest()[:50] for n in range(400))
    for start in (0, 1):
        writer.events(*deposits("|".join(str(n) for n in range(400)), start=start), shape=shape)
    assert shown(look)["k1"] == shown(look)["k0"] == {name: str(n) for n, name in enumerate(shape)}
    assert look("select count(*) as n from crm.event_shapes") == [{"n": 1}]


def test_an_erased_player_has_no_values(writer: Writer, look: Look) -> None:
    """What comes again of an erased player keeps its money and tells nothing else."""
    writer.profiles({"external_id": "7"})
    writer.connection.execute("update crm.players set erased_at = now()")
    writer.events(*deposits("card|0.10|Ana"), shape=SHAPE)
    assert shown(look) == {"k0": {}}
    assert look("select properties::text as text, packed from crm.event_rows") == [{"text": "{}", "packed": None}]


def test_rows_of_before_and_of_now_survive_the_way_back(writer: Writer, store: Database, look: Look) -> None:
    """Down and up again: every row shows the same properties at each step."""
    writer.events(*deposits("card||x", ""), shape=SHAPE)
    writer.events({"key": "own", "external_id": "7", "properties": json.dumps({"bank": "B"})})
    before = shown(look)
    assert before == {"k0": {"method": "card", "note": "x"}, "k1": {}, "own": {"bank": "B"}}
    writer.close()
    for revision in ("0010", "0011", "0012"):
        at_revision(store.url, revision)
        with psycopg.connect(store.url) as connection:
            rows = connection.execute("select key, properties from crm.events order by seq").fetchall()
        assert dict(rows) == before


def test_values_that_were_json_keep_their_names(writer: Writer, store: Database) -> None:
    """Rows of a store whose values stood in arrays show what they showed."""
    writer.events(*deposits("card", "cash"), shape=SHAPE)
    writer.close()
    at_revision(store.url, "0011")
    with psycopg.connect(store.url) as connection:
        values, erased = json.dumps(["card", None, 'a "b" \x1f']), "{}"
        for key, stored in (("k0", values), ("k1", erased)):
            connection.execute(
                "update crm.event_rows set properties = %s, shape_id = (select shape_id from crm.event_shapes)"
                " where key = %s",
                (stored, key),
            )
        before = connection.execute("select key, properties from crm.events order by seq").fetchall()
    assert before == [("k0", {"method": "card", "note": 'a "b" \x1f'}), ("k1", {})]
    at_revision(store.url, "0012")
    with psycopg.connect(store.url) as connection:
        assert connection.execute("select key, properties from crm.events order by seq").fetchall() == before
