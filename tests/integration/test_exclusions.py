"""Who may be marketed to, at any moment: status, tags and rules of a row, and breaks and exclusions that end by the clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock
from connector.normalised import LABELS, Normalised
from connector.player import STATUSES, MarketingRules
from connector.store import database, edges, players
from connector.store.commit import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

Writer = Any
Look = Any
TENANT: Final = "kaasino"
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITHDRAWN: Final = {
    "email_disabled": "email",
    "sms_disabled": "sms",
    "push_disabled": "push",
    "calls_disabled": "phone",
}
_RUNS: Final = itertools.count(1)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Give a function that sets this machine's clock."""
    return lambda moment: monkeypatch.setattr(clock, "now", lambda: moment)


def judged(writer: Writer, ids: list[int], moment: datetime) -> list[int]:
    """Judge players as the loop does that time wakes."""
    with writer.connection.transaction():
        database.ordered(writer.connection)
        return players.judge(writer.connection, ids, moment)


def label(writer: Writer, player: str, tag: str, moment: datetime, *, present: bool = True, kind: str = "tag") -> None:
    """Commit one label."""
    row = (TENANT, player, kind, tag, present, moment)
    writer.commit(Batch(writer.checkpoint, Normalised(labels=pl.DataFrame([row], schema=LABELS, orient="row")), rows=1))


# The rule -----------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What an independent reader of the rows knows of one player."""

    rules: MarketingRules = field(default_factory=MarketingRules)
    raw: str | None = None
    cooling: datetime | None = None
    until: datetime | None = None
    tagged: bool = False
    updated: datetime | None = None

    def excluded(self, moment: datetime) -> bool:
        """Whether the player is self-excluded."""
        return self.raw == "SELF_EXCLUDED" or (self.until is not None and self.until > moment)

    def marketable(self, moment: datetime) -> bool:
        """Whether the player may be marketed to."""
        if self.raw not in self.rules.statuses or self.excluded(moment):
            return False
        if self.tagged and "SE" in self.rules.excluded_tags:
            return False
        return self.cooling is None or self.cooling <= moment


_MINUTES: Final = st.sampled_from([None, None, 0, 1, 2, -1])
_RAW: Final = st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "APPROVED", "SELF_EXCLUDED", "LOCKED", "FROZEN"])
_ROW: Final = st.tuples(st.just("row"), _RAW, _MINUTES, _MINUTES, st.sampled_from([False, False, True]))
_RULES: Final = st.tuples(st.just("rules"), st.booleans(), st.booleans())
_TAG: Final = st.tuples(st.just("tag"), st.booleans())
_TIME: Final = st.tuples(st.just("time"))
_STEPS: Final = st.lists(st.tuples(st.integers(0, 2), _ROW | _RULES | _TAG | _TIME | _TIME), min_size=6, max_size=14)


def _row(writer: Writer, known: Known, name: str, moment: datetime, step: tuple[Any, ...]) -> bool:
    _, raw, cooling, until, late = step
    updated = (known.updated or moment) - timedelta(hours=1) if late else moment
    writer.profiles(
        {
            "external_id": name,
            "status_raw": raw,
            "status": STATUSES.get(raw, "banned"),
            "eligible": raw in known.rules.statuses,
            "cooling_off_until": None if cooling is None else moment + timedelta(minutes=cooling),
            "rg_self_excluded_until": None if until is None else moment + timedelta(minutes=until),
            "source_updated_at": updated,
            "cursor": str(updated),
        },
        production=not late,
    )
    if late and known.raw is not None:
        return False  # an older row that another reader brought says nothing
    known.raw, known.updated = raw, updated
    known.cooling = None if cooling is None else moment + timedelta(minutes=cooling)
    known.until = known.until if until is None else moment + timedelta(minutes=until)
    return True


def _step(writer: Writer, known: Known, name: str, moment: datetime, step: tuple[Any, ...]) -> bool:
    """Take a step; returns whether the player was judged by it."""
    if step[0] == "row":
        return _row(writer, known, name, moment, step)
    if step[0] == "tag":
        known.tagged = step[1]
        label(writer, name, "SE", moment, present=step[1])
    elif step[0] == "rules":
        statuses = {"ACTIVE", "APPROVED"} if step[1] else {"ACTIVE"}
        known.rules = MarketingRules(frozenset(statuses), frozenset({"SE"} if step[2] else ()))
        players.apply_rules(writer.connection, TENANT, known.rules, moment)
    return False


_PLAYER: Final = """
    select p.*, (select change_seq from crm.player_changes c where c.player_id = p.player_id and reason = 'exclusion')
        as excluded_seq, (select change_seq from crm.player_changes c where c.player_id = p.player_id
                          and reason = 'profile') as profile_seq
    from crm.players p where external_id = %s
"""


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=_STEPS)
def test_a_player_is_marketable_exactly_while_the_rule_says_so(
    writer: Writer, look: Look, at: Callable[[datetime], None], steps: list[tuple[int, tuple[Any, ...]]]
) -> None:
    """Through rows, labels, changed rules and time: the store says what a reader of the rows says, and tells of it."""
    known, name, moment, before = Known(), f"p{next(_RUNS)}", NOON, None
    look("update crm.tenants set marketing_rules = %s returning 1", known.rules.written())
    for minutes, step in steps:
        moment += timedelta(minutes=minutes)
        at(moment)
        fresh = _step(writer, known, name, moment, step)
        found = look(_PLAYER, name)
        if found and not fresh:
            judged(writer, [found[0]["player_id"]], moment)
            found = look(_PLAYER, name)
        if not found or known.raw is None:
            continue
        (player,) = found
        assert (player["marketable"], player["rg_self_excluded"]) == (known.marketable(moment), known.excluded(moment))
        if before is not None:
            moved = {key: player[key] != before[key] for key in ("excluded_seq", "profile_seq", "marketable")}
            assert moved["excluded_seq"] == (moved["marketable"] and before["marketable"])
            assert moved["profile_seq"] or not moved["marketable"]
        assert judged(writer, [player["player_id"]], moment) == []
        before = look(_PLAYER, name)[0]


def test_an_exclusion_ends_when_its_time_has_come(writer: Writer, look: Look, at: Callable[[datetime], None]) -> None:
    """At the very instant it is over; a player it holds no more is a changed profile, and no exclusion."""
    at(NOON)
    end = NOON + timedelta(hours=1)
    writer.profiles({"external_id": "7", "rg_self_excluded_until": end})
    (player,) = look(_PLAYER, "7")
    assert (player["status"], player["marketable"], player["rg_self_excluded"]) == ("active", False, True)
    assert judged(writer, [player["player_id"]], end - timedelta(microseconds=1)) == []
    assert judged(writer, [player["player_id"]], end) == [player["player_id"]]
    (after,) = look(_PLAYER, "7")
    assert (after["marketable"], after["rg_self_excluded"]) == (True, False)
    assert after["profile_seq"] > player["profile_seq"]
    assert after["excluded_seq"] == player["excluded_seq"]


def test_null_ends_a_break_and_never_an_exclusion(writer: Writer, look: Look, at: Callable[[datetime], None]) -> None:
    """Only a time says that a self-exclusion is over; of a break the operator's NULL says it."""
    at(NOON)
    later = NOON + timedelta(days=1)
    writer.profiles({"external_id": "7", "rg_self_excluded_until": later, "cooling_off_until": later})
    writer.profiles({"external_id": "7", "source_updated_at": NOON})
    (player,) = look(_PLAYER, "7")
    assert (player["rg_self_excluded_until"], player["cooling_off_until"], player["marketable"]) == (later, None, False)
    writer.profiles({"external_id": "7", "rg_self_excluded_until": NOON - timedelta(hours=1)})
    assert look(_PLAYER, "7")[0]["marketable"]


def test_an_unchanged_page_is_judged_by_the_clock_too(
    writer: Writer, look: Look, at: Callable[[datetime], None]
) -> None:
    """Whatever reads the row again after its end finds the player free, and says so."""
    at(NOON)
    row = {"external_id": "7", "cooling_off_until": NOON + timedelta(hours=1)}
    assert writer.profiles(row).players == 1
    assert writer.profiles(row).players == 0
    at(NOON + timedelta(hours=1))
    assert writer.profiles(row).players == 1
    assert look(_PLAYER, "7")[0]["marketable"]


@pytest.mark.parametrize("column", ["cooling_off_until", "rg_self_excluded_until"])
def test_the_end_is_noticed_with_no_new_row(
    writer: Writer, look: Look, at: Callable[[datetime], None], column: str
) -> None:
    """It stands among the moments at which time alone changes a player, and is judged when it has passed."""
    at(NOON)
    end = NOON + timedelta(hours=1)
    writer.profiles({"external_id": "7", column: end}, {"external_id": "8", column: NOON})
    assert look("select edge_at from crm.player_edges") == [{"edge_at": end}]
    for moment, passed, marketable in ((end - timedelta(seconds=1), 0, False), (end, 1, True), (end, 0, True)):
        assert edges.pass_due(writer.connection, TENANT, moment, limit=10, lease=writer.lease) == passed
        assert look(_PLAYER, "7")[0]["marketable"] is marketable


# Consents and logins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", WITHDRAWN)
def test_a_consent_bears_the_stamp_of_its_change(writer: Writer, look: Look, flag: str) -> None:
    """First known, unchanged, turned, not told any more: only the first and the turn move stamp and version."""
    kind, hours = WITHDRAWN[flag], [NOON + timedelta(hours=number) for number in range(5)]
    expected = [(True, 12, 1), (True, 12, 1), (False, 14, 2), (False, 14, 2), (True, 16, 3)]
    for stamp, disabled, (granted, hour, version) in zip(
        hours, (False, False, True, None, False), expected, strict=True
    ):
        writer.profiles({"external_id": "7", flag: disabled, "source_updated_at": stamp, "cursor": str(stamp)})
        (player,) = look("select consents from crm.players")
        at = f"2026-03-01T{hour}:00:00.000000Z"
        said = {"granted": granted, "changed_at": at, "version": version, "basis": flag}
        assert player["consents"] == {kind: said}
    old = look("select kind, version, granted, changed_at from crm.player_consents order by version")
    assert [tuple(row.values()) for row in old] == [(kind, 1, True, hours[0]), (kind, 2, False, hours[2])]


def test_a_login_is_an_event_and_a_session_once(writer: Writer, look: Look) -> None:
    """A page that comes again, or an older login, adds nothing."""
    known = {"external_id": "7", "history": False, "registered_at": None}
    for hour in (12, 13, 13, 12, 14):
        login = NOON.replace(hour=hour)
        writer.profiles({**known, "last_login_at": login, "source_updated_at": login, "cursor": str(login)})
    events = look("select name, key, occurred_at from crm.events order by occurred_at")
    assert [(row["name"], row["occurred_at"].hour) for row in events] == [("login", 12), ("login", 13), ("login", 14)]
    (player,) = look("select session_count, last_login_at, last_seen_at from crm.players")
    assert (player["session_count"], player["last_login_at"], player["last_seen_at"]) == (
        *(3, NOON.replace(hour=14)),
        NOON.replace(hour=14),
    )


@pytest.mark.parametrize("operator", ["postgresql"], indirect=True)
def test_a_row_without_a_status_clears_nothing(casino_of_texts: Any) -> None:
    """It is refused, and what was known of the player stays."""
    casino = casino_of_texts
    casino.create("user_profile")
    casino.users({"user_ext_id": "7", "core_account_status": "SELF_EXCLUDED"})
    assert casino.run(user_profile={}) == {}
    casino.operator.execute(
        "update user_profile_rows set core_account_status = null, dt_update = '2026-01-06 12:00:00'"
    )
    assert casino.run(user_profile={}) == {}
    (player,) = casino.rows("select status, rg_self_excluded, marketable from crm.players")
    assert player == {"status": "self_excluded", "rg_self_excluded": True, "marketable": False}
    assert list(casino.refused().values()) == [("missing", "core_account_status")]
