"""Segments in a real store: what SQL finds is what was said, by indexes, and a refresh touches who moves alone."""

from __future__ import annotations

import os
import random
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from psycopg.rows import dict_row

from connector.errors import Transient
from connector.segments import definition, draft
from connector.segments.compiler import Compiled, compile_all
from connector.segments.definition import InvalidSegment
from connector.segments.draft import NameTaken, NoSegment
from connector.segments.windows import Calendar
from connector.store import database, segment_drafts, segments
from tests.integration.segment_oracle import (
    EVENTS,
    TENANT,
    TEXTS,
    TODAY,
    ZONE,
    conditions,
    definitions,
    matches,
    populate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from connector.store.database import Database

Look = Any
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "150"))
CALENDAR: Final = Calendar(TODAY, ZONE)
SEARCH: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="CONNECTOR_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_CONTACTS: Final = """
    create table if not exists crm.player_contacts (
        player_id bigint primary key references crm.players, tenant text not null, email text, phone text,
        email_match text collate "C", phone_match text collate "C")
"""


def trait(name: str, op: str, *value: object) -> dict[str, Any]:
    """Return a condition on a field."""
    return {"type": "trait", "field": name, "op": op, **({"value": value[0]} if value else {})}


def event(name: str, days: int, aggregation: str, op: str, value: object) -> dict[str, Any]:
    """Return a condition on what was done."""
    window = {"kind": "rolling", "days": days}
    return {"type": "event", "event": name, "window": window, "aggregation": aggregation, "op": op, "value": value}


def every(*conditions: dict[str, Any]) -> dict[str, Any]:
    """Return a group of conditions that all hold."""
    return {"operator": "AND", "conditions": list(conditions)}


VIPS: Final = every(trait("tags", "contains", "vip"))


@dataclass
class Studio:
    """A store with players at random, and the hands of a marketer."""

    connection: psycopg.Connection[Any]
    store: Database
    plans: list[str] = field(default_factory=list)

    def make(self, name: str, said: dict[str, Any], **more: object) -> int:
        """Make a segment and return its number."""
        wanted = draft.parse({"name": name, "definition": said, **more})
        return segment_drafts.create(self.connection, TENANT, wanted).segment_id

    def edit(self, segment_id: int, **said: object) -> segments.Segment:
        """Change a segment."""
        before = segment_drafts.said_of(segments.get(self.connection, TENANT, segment_id))
        return segment_drafts.edit(self.connection, TENANT, segment_id, draft.parse(said, before=before))

    def refresh(self, segment_id: int) -> segments.Refreshed:
        """Refresh a segment as of the day."""
        return segments.refresh(self.connection, TENANT, segment_id, TODAY)

    def evaluate(self, player_ids: list[int]) -> list[segments.Change]:
        """Judge players as the daemon does."""
        with self.connection.transaction():
            database.ordered(self.connection)
            return segments.evaluate(self.connection, TENANT, player_ids, TODAY)

    def rows(self) -> list[dict[str, Any]]:
        """Return every player as the oracle wants it."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute("select * from crm.players order by player_id").fetchall()
            contacts = {row["player_id"]: row for row in cursor.execute("select * from crm.player_contacts").fetchall()}
            days = cursor.execute("select * from crm.player_days").fetchall()
        for row in found:
            row["contact"] = contacts.get(row["player_id"])
            row["days"] = [day for day in days if day["player_id"] == row["player_id"]]
        return found

    def said(self, tree: dict[str, Any]) -> set[int]:
        """Return whom a definition means, by the oracle."""
        rows = (row for row in self.rows() if row["erased_at"] is None)
        return {row["player_id"] for row in rows if matches(tree, row)}

    def members(self, segment_id: int) -> set[int]:
        """Return who is in a segment."""
        query = "select player_id from crm.players where %s = any(segment_ids)"
        return {player_id for (player_id,) in self.connection.execute(query, (segment_id,)).fetchall()}

    def marked(self) -> set[int]:
        """Return who is marked as changed, and forget it."""
        return {row[0] for row in self.connection.execute("delete from crm.player_changes returning player_id")}


@pytest.fixture
def empty(store: Database) -> Iterator[Studio]:
    """Give a store without players."""
    with store.connect() as connection:
        connection.execute(_CONTACTS)
        connection.execute(
            "insert into crm.tenants (tenant, base_currency, reporting_timezone) values (%s, 'EUR', %s)", (TENANT, ZONE)
        )
        yield Studio(connection, store)


@pytest.fixture
def studio(empty: Studio) -> Studio:
    """Give a store with players."""
    seed = random.randrange(2**32) if "CONNECTOR_EXAMPLES" in os.environ else 7
    with empty.connection.transaction():
        populate(empty.connection, random.Random(seed), 150)
    return empty


# What is found ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(0 if "CONNECTOR_EXAMPLES" in os.environ else 120)
def test_sql_finds_whom_the_definition_means(studio: Studio) -> None:
    """For any tree: judging a few, a refresh, and a preview agree with a computation that knows no SQL."""
    rows = studio.rows()
    ids = [row["player_id"] for row in rows]

    @SEARCH
    @given(definitions())
    def agrees(said: dict[str, Any]) -> None:
        meant = {row["player_id"] for row in rows if row["erased_at"] is None and matches(said, row)}
        tree = definition.parse(said)
        compiled = compile_all({7: tree}, CALENDAR)
        changes = segments.judged(studio.connection, TENANT, compiled, ids)
        assert {player_id for player_id, _, entered in changes if entered} == meant
        assert {
            number for piece in segments._differing(studio.connection, TENANT, compiled) for number in piece
        } == meant
        shown = segment_drafts.preview(studio.connection, TENANT, tree, TODAY)
        assert (shown.estimate, shown.exact, len(shown.sample)) == (len(meant), True, min(10, len(meant)))
        assert {row["player_id"] for row in shown.sample} <= meant

    agrees()


def test_every_operator_of_every_field_finds_whom_it_means(studio: Studio) -> None:
    """Each condition by itself, with every value that the oracle knows, over texts and numbers that are odd or absent."""
    rows, said = studio.rows(), conditions()
    ids = [row["player_id"] for row in rows]
    for start in range(0, len(said), 500):
        part = dict(enumerate(said[start : start + 500], start=start))
        trees = {number: definition.parse(every(condition)) for number, condition in part.items()}
        changes = segments.judged(studio.connection, TENANT, compile_all(trees, CALENDAR), ids)
        for number, condition in part.items():
            meant = {row["player_id"] for row in rows if row["erased_at"] is None and matches(condition, row)}
            assert {player_id for player_id, found, _ in changes if found == number} == meant, condition


def test_another_tenants_players_are_not_found(studio: Studio) -> None:
    """Not by traits, not by events, not by contacts."""
    studio.connection.execute("update crm.players set tenant = 'other'")
    for said in (trait("status", "!=", "x"), event("login", 365, "count", ">=", 0), trait("email", "!=", "x")):
        number = studio.make(f"{said}"[:100], every(said))
        assert studio.refresh(number).members == 0
    assert studio.evaluate([row["player_id"] for row in studio.rows()]) == []
    assert studio.members(number) == set()


PAYLOADS: Final = (
    *("'; drop table crm.players; --", "' or '1'='1", '" or ""="', "%(tenant)s", "%s", "%%", "%", "$1", "\\", "\\'"),
    *("{}", "{0}", "''", "/*", "*/", "p.status", "null", "\u2028", "\u00e9'", "a\nb", "vip') or ('1'='1"),
)


def test_a_text_is_only_ever_a_text(empty: Studio) -> None:
    """In every position that takes one: it finds who bears it, and nobody else."""
    for payload in PAYLOADS:
        victim, other = (_bearing(empty, text) for text in (payload, "nothing of the kind"))
        for op in ("=", "in", "contains", "starts_with"):
            for name in ("status", "email", "external_id"):
                tree = definition.parse(every(trait(name, op, [payload] if op == "in" else payload)))
                compiled = compile_all({7: tree}, CALENDAR)
                text = re.sub(r"%\(\w+\)s", "", compiled.predicates[7])
                assert payload not in text or payload in {"null", "p.status"}
                changes = segments.judged(empty.connection, TENANT, compiled, [victim, other])
                assert changes == [(victim, 7, True)], (payload, name, op)
        name = f"named {payload.replace(chr(10), ' ').replace(chr(0x2028), ' ')}"
        number = empty.make(name, every(trait("tags", "contains", payload)), description=payload)
        assert empty.refresh(number).entered == [victim], payload
        made = segments.get(empty.connection, TENANT, number)
        assert (made.name, made.description) == (name.strip(), payload)


def _bearing(studio: Studio, text: str) -> int:
    """Write a player who bears a text wherever there is one."""
    ((player_id,),) = studio.connection.execute(
        "insert into crm.players (tenant, brand_id, external_id, status, tags)"
        " values (%s, gen_random_uuid()::text, %s, %s, jsonb_build_array(%s::text)) returning player_id",
        (TENANT, text, text, text),
    ).fetchall()
    studio.connection.execute(
        "insert into crm.player_contacts (player_id, tenant, email, email_match) values (%s, %s, %s, lower(%s))",
        (player_id, TENANT, text, text),
    )
    return int(player_id)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("place", ["field", "op", "event", "aggregation", "operator", "type", "kind"])
def test_a_name_that_is_not_known_never_reaches_the_server(payload: str, place: str) -> None:
    """Fields, operators, events and aggregations come from tables."""
    said = (
        event("login", 7, "count", ">=", 1) if place in {"event", "aggregation", "kind"} else trait("status", "=", "x")
    )
    if place == "kind":
        said["window"]["kind"] = payload
    elif place != "operator":
        said[place] = payload
    tree = every(said)
    if place == "operator":
        tree["operator"] = payload
    with pytest.raises(InvalidSegment):
        definition.parse(tree)


# Refreshing ---------------------------------------------------------------------------------------------------------


def _places(studio: Studio) -> dict[int, str]:
    return dict(studio.connection.execute("select player_id, ctid::text from crm.players").fetchall())


def test_a_refresh_touches_only_who_enters_or_leaves(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody else's row stays where it is; who moved is marked; a second refresh does nothing at all."""
    monkeypatch.setattr(segments, "_PIECE", 7)
    number = studio.make("vips", VIPS)
    meant, places = studio.said(VIPS), _places(studio)
    done = studio.refresh(number)
    assert (set(done.entered), done.left, done.members, done.first) == (meant, [], len(meant), True)
    assert {player_id for player_id, place in _places(studio).items() if place != places[player_id]} == meant
    assert studio.marked() == meant
    gone, come = min(meant), min(set(places) - meant - {row["player_id"] for row in studio.rows() if row["erased_at"]})
    studio.connection.execute("update crm.players set tags = '[]' where player_id = %s", (gone,))
    studio.connection.execute("""update crm.players set tags = '["vip"]' where player_id = %s""", (come,))
    places = _places(studio)
    done = studio.refresh(number)
    assert (done.entered, done.left, done.members, done.first) == ([come], [gone], len(meant), False)
    assert {player_id for player_id, place in _places(studio).items() if place != places[player_id]} == {gone, come}
    assert studio.marked() == {gone, come}
    places = _places(studio)
    assert studio.refresh(number).entered == []
    assert _places(studio) == places
    assert studio.marked() == set()


def test_who_becomes_unknown_leaves(studio: Studio) -> None:
    """Nothing equals what is absent."""
    number = studio.make("here", every(trait("country", "in", ["active", "gold"]), trait("tags", "contains", "vip")))
    members = studio.refresh(number).entered
    assert len(members) > 1
    studio.connection.execute("update crm.players set country = null where player_id = %s", (members[0],))
    studio.connection.execute("update crm.players set tags = null where player_id = %s", (members[1],))
    assert studio.refresh(number).left == members[:2]


def test_a_first_refresh_sees_who_changes_while_it_runs(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is done nobody looks at a single player, so it looks again at the end."""
    number = studio.make("vips", VIPS)
    late = min({row["player_id"] for row in studio.rows() if not row["erased_at"]} - studio.said(VIPS))
    plain = segments.announce

    def announce(*told: Any, **more: Any) -> None:
        plain(*told, **more)
        with studio.store.connect() as other:
            other.execute("""update crm.players set tags = '["vip"]' where player_id = %s""", (late,))
        monkeypatch.setattr(segments, "announce", plain)

    monkeypatch.setattr(segments, "announce", announce)
    done = studio.refresh(number)
    assert late in done.entered
    assert studio.members(number) == studio.said(VIPS)


def test_a_refresh_that_is_overtaken_by_an_edit_stops(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has found is of another definition."""
    number = studio.make("vips", VIPS)
    plain = segments._differing

    def differing(*told: Any) -> Iterator[list[int]]:
        for ids in plain(*told):
            studio.edit(number, definition=every(trait("marketable", "=", True)))
            yield ids

    monkeypatch.setattr(segments, "_differing", differing)
    with pytest.raises(Transient, match="was changed while it was refreshed"):
        studio.refresh(number)
    assert studio.members(number) == set()
    monkeypatch.setattr(segments, "_differing", plain)
    assert studio.refresh(number).members == len(studio.said(every(trait("marketable", "=", True))))


def test_only_another_definition_is_another_revision(studio: Studio) -> None:
    """Its members are due at once, but for what is refreshed on demand; a name or purpose changes nothing."""
    number = studio.make("vips", VIPS)
    made = segments.get(studio.connection, TENANT, number)
    assert (made.revision, made.refreshed, made.members) == (1, False, None)
    assert made.next_refresh_at is not None
    studio.refresh(number)
    done = segments.get(studio.connection, TENANT, number)
    assert (done.refreshed, done.next_refresh_at, done.refreshed_revision) == (True, None, 1)
    same = {"conditions": [{"value": "vip", "op": "contains", "field": "tags", "type": "trait"}], "operator": "AND"}
    renamed = studio.edit(number, name="VIPs", description="for Ana", definition=same)
    assert (renamed.revision, renamed.refreshed, renamed.next_refresh_at) == (1, True, None)
    other = studio.edit(number, definition=every(trait("marketable", "=", True)))
    assert (other.revision, other.refreshed, other.members) == (2, False, done.members)
    assert other.next_refresh_at is not None
    daily = studio.edit(number, refresh_strategy="scheduled", schedule="0 4 * * *")
    assert daily.next_refresh_at is not None
    assert (daily.next_refresh_at.minute, daily.next_refresh_at.second) == (0, 0)
    assert studio.refresh(number).first
    assert segments.get(studio.connection, TENANT, number).next_refresh_at == daily.next_refresh_at
    assert studio.edit(number, refresh_strategy="on_demand").next_refresh_at is None


def test_a_name_is_used_once(studio: Studio) -> None:
    """Making and renaming say so; another tenant may have it."""
    studio.make("vips", VIPS)
    other = studio.make("others", VIPS)
    with pytest.raises(NameTaken, match="'vips'"):
        studio.make("vips", VIPS)
    with pytest.raises(NameTaken):
        studio.edit(other, name="vips")
    wanted = draft.parse({"name": "vips", "definition": VIPS})
    assert segment_drafts.create(studio.connection, "another", wanted).name == "vips"
    with pytest.raises(NoSegment):
        segments.get(studio.connection, "another", other)


def test_a_deleted_segment_leaves_no_member(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, each marked; other memberships stay."""
    monkeypatch.setattr(segment_drafts, "_PIECE", 4)
    number, kept = studio.make("vips", VIPS), studio.make("kept", VIPS)
    members = set(studio.refresh(number).entered)
    studio.refresh(kept)
    studio.marked()
    assert segment_drafts.delete(studio.connection, TENANT, number) == len(members)
    assert studio.marked() == members
    assert (studio.members(number), studio.members(kept)) == (set(), members)
    with pytest.raises(NoSegment):
        segment_drafts.delete(studio.connection, TENANT, number)


# One by one ---------------------------------------------------------------------------------------------------------


def test_players_are_judged_one_by_one_as_a_refresh_would(studio: Studio) -> None:
    """By realtime segments that have been refreshed; each player enters and leaves once."""
    trees = [VIPS, every(event("bet_settled", 7, "sum", ">", 5)), every(trait("email", "contains", "example"))]
    numbers = [studio.make(f"s{index}", tree) for index, tree in enumerate(trees)]
    waiting, asked = studio.make("waiting", VIPS), studio.make("asked", VIPS, refresh_strategy="on_demand")
    for number in (*numbers, asked):
        studio.refresh(number)
    studio.connection.execute("update crm.players set segment_ids = %s where player_id %% 2 = 0", ([numbers[0], 9999],))
    ids = [row["player_id"] for row in studio.rows()]
    changes = studio.evaluate(ids[:100])
    assert changes
    assert studio.evaluate(ids[:100]) == []
    for number, tree in zip(numbers, trees, strict=True):
        assert studio.members(number) & set(ids[:100]) == studio.said(tree) & set(ids[:100])
    assert studio.members(waiting) == set()
    assert {row["player_id"] for row in studio.rows() if 9999 in row["segment_ids"]} == {i for i in ids if i % 2 == 0}
    assert all(row["segment_ids"] == sorted(set(row["segment_ids"])) for row in studio.rows()[:100])
    studio.evaluate(ids)
    assert [studio.refresh(number).entered for number in numbers] == [[], [], []]


def test_a_segment_that_cannot_be_judged_says_why_and_holds_no_other_up(studio: Studio, look: Look) -> None:
    """Its members stay as they are."""
    broken, right = studio.make("broken", VIPS), studio.make("right", VIPS)
    for number in (broken, right):
        studio.refresh(number)
    members = studio.members(broken)
    bad = """update crm.segments set definition = '{"operator": "AND", "conditions": [5]}' where segment_id = %s"""
    studio.connection.execute(bad, (broken,))
    studio.connection.execute("update crm.players set tags = '[]'")
    changes = studio.evaluate(sorted(members))
    assert {(number, entered) for _, number, entered in changes} == {(right, False)}
    assert studio.members(broken) == members
    told = {row["segment_id"]: row["error"] for row in look("select segment_id, error from crm.segments")}
    assert "conditions[0]" in told[broken]
    assert told[right] is None
    with suppress(InvalidSegment):
        studio.refresh(broken)
    studio.edit(broken, definition=VIPS)
    studio.refresh(broken)
    assert segments.get(studio.connection, TENANT, broken).error is None
    assert studio.members(broken) == set()


def test_an_erased_player_leaves(studio: Studio) -> None:
    """At the next look, and no refresh brings it back."""
    number = studio.make("vips", VIPS)
    one = studio.refresh(number).entered[0]
    studio.connection.execute("update crm.players set erased_at = now() where player_id = %s", (one,))
    assert studio.evaluate([one]) == [(one, number, False)]
    assert studio.refresh(number).entered == []


# Plans --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(empty: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Give a store with a crowd, whose compiled statements are explained, not run."""
    empty.connection.execute(
        "insert into crm.players (tenant, brand_id, external_id, kyc_status, segment_ids) select %s, 'b', g::text,"
        " case when g %% 500 = 0 then 'rejected' else 'verified' end,"
        " case when g %% 500 = 0 then array[1] else '{}'::integer[] end from generate_series(1, 30000) g",
        (TENANT,),
    )
    empty.connection.execute(
        "insert into crm.player_days (tenant, player_id, day, name_id, events)"
        " select %s, p, %s::date - d, 16, 1 from generate_series(1, 30000) p, generate_series(0, 5) d",
        (TENANT, TODAY),
    )
    empty.connection.execute("analyze crm.players, crm.player_days")
    plain = segments.ask

    def explained(
        connection: Any, tenant: str, compiled: Compiled, statement: str, values: dict[str, Any]
    ) -> list[Any]:
        rows = plain(connection, tenant, compiled, f"explain {statement}", values)
        empty.plans.append("\n".join(row[0] for row in rows))
        return []

    monkeypatch.setattr(segments, "ask", explained)
    return empty


def test_a_few_players_are_judged_by_keys(crowd: Studio) -> None:
    """Their rows and their days alone are read."""
    tree = definition.parse(every(event("bet_settled", 7, "count", ">=", 5), trait("kyc_status", "=", "verified")))
    segments.judged(crowd.connection, TENANT, compile_all({7: tree}, CALENDAR), list(range(1, 200)))
    assert "player_days_pkey" in crowd.plans[0]
    assert "players_pkey" in crowd.plans[0]
    assert "Seq Scan" not in crowd.plans[0]


def test_a_selective_trait_and_members_are_found_by_indexes(crowd: Studio) -> None:
    """Who enters by the trait's, who leaves by what asks the one on segment_ids."""
    tree = definition.parse(every(trait("kyc_status", "=", "rejected")))
    assert list(segments._differing(crowd.connection, TENANT, compile_all({1: tree}, CALENDAR))) == []
    assert "players_kyc" in crowd.plans[0]
    assert "members(1)" in crowd.plans[0]
    assert "Seq Scan" not in crowd.plans[0]
    asked = "explain select player_id from crm.players where tenant = 'kaasino' and segment_ids @> array[1]"
    assert "players_segments" in str(crowd.connection.execute(asked).fetchall())


def test_a_contact_is_found_by_its_index(crowd: Studio) -> None:
    """Not by reading every contact: one look-up, before any player is read."""
    tree = definition.parse(every(trait("email", "=", "Ana@example.com")))
    list(segments._differing(crowd.connection, TENANT, compile_all({1: tree}, CALENDAR)))
    assert "InitPlan" in crowd.plans[0]
    assert "Seq Scan on players" not in crowd.plans[0]


# Previews -----------------------------------------------------------------------------------------------------------


def test_a_preview_counts_to_a_bound_and_says_when_it_does_not(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, or where counting takes too long, the planner's number stands."""
    studio.connection.execute("analyze crm.players")
    tree = definition.parse(every(trait("status", "!=", "x")))
    exact = segment_drafts.preview(studio.connection, TENANT, tree, TODAY)
    assert exact.exact
    monkeypatch.setattr(segment_drafts, "EXACT_TO", 5)
    rough = segment_drafts.preview(studio.connection, TENANT, tree, TODAY)
    assert (rough.exact, len(rough.sample)) == (False, 10)
    assert abs(rough.estimate - exact.estimate) < 30
    monkeypatch.setattr(segment_drafts, "_PATIENCE", "set local statement_timeout = 1")
    slow = definition.parse(
        {"operator": "OR", "conditions": [event(n, 365, "last", "=", 9) for n in EVENTS for _ in TEXTS]}
    )
    assert not segment_drafts.preview(studio.connection, TENANT, slow, TODAY).exact


def test_a_preview_tells_nobodys_name_or_contact(studio: Studio) -> None:
    """It is a sample, not a list of people."""
    tree = definition.parse(every(trait("email", "contains", "@")))
    (row, *_) = segment_drafts.preview(studio.connection, TENANT, tree, TODAY).sample
    assert not {"email", "phone", "first_name", "last_name", "username", "traits"} & set(row)
