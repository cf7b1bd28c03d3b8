"""Tags and groups that come one by one: the newest word of each counts, and so does what they exclude from."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
import structlog
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import app as application, audit, config
from connector.normalised import LABELS, Normalised
from connector.player import MarketingRules
from connector.store.commit import Batch, Committed
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.store import database

Writer = Any
Look = Any
TENANT: Final = "kaasino"
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_RUNS: Final = itertools.count(1)


def said(
    label: str, *, player: str = "7", kind: str = "tag", present: bool = True, minutes: int = 0
) -> tuple[Any, ...]:
    """Return a row of labels."""
    return (TENANT, player, kind, label, present, NOON + timedelta(minutes=minutes))


def write(writer: Writer, *rows: tuple[Any, ...], production: bool = True) -> Committed:
    """Commit a page of labels."""
    frame = pl.DataFrame(rows, schema=LABELS, orient="row")
    done: Committed = writer.commit(
        Batch(writer.checkpoint, Normalised(labels=frame), rows=frame.height, production=production)
    )
    return done


def lists(look: Look, player: str = "7") -> tuple[Any, Any]:
    """Return a player's tags and groups."""
    ((row),) = look("select tags, groups from crm.players where external_id = %s", player)
    return row["tags"], row["groups"]


_WORD: Final = st.tuples(
    st.sampled_from(["tag", "group"]), st.sampled_from(["SE", "vip", "00011"]), st.booleans(), st.integers(0, 4)
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pages=st.lists(st.lists(_WORD, min_size=1, max_size=6), min_size=1, max_size=6), again=st.booleans())
def test_the_newest_word_of_each_label_counts(
    writer: Writer, look: Look, pages: list[list[tuple[Any, ...]]], again: bool
) -> None:
    """In any order and division, however often it comes; of one stamp the word that was read last."""
    player, newest = f"p{next(_RUNS)}", {}
    for page in pages:
        write(writer, *(said(label, player=player, kind=kind, present=on, minutes=at) for kind, label, on, at in page))
        for kind, label, on, at in page:
            if newest.get((kind, label), (-1, False))[0] <= at:
                newest[kind, label] = (at, on)
    if again:
        rows = [
            said(label, player=player, kind=kind, present=on, minutes=at) for (kind, label), (at, on) in newest.items()
        ]
        assert write(writer, *rows).players == 0
    expected = {
        kind: sorted(label for (own, label), (_, on) in newest.items() if own == kind and on)
        for kind in {kind for kind, _ in newest}
    }
    assert lists(look, player) == (expected.get("tag"), expected.get("group"))


def test_an_older_word_of_another_reader_changes_nothing(writer: Writer, look: Look) -> None:
    """Nor does one of the same stamp: the production reader read the later snapshot."""
    write(writer, said("vip", minutes=5))
    for minutes in (4, 5):
        write(writer, said("vip", present=False, minutes=minutes), production=False)
    assert lists(look) == (["vip"], None)


def test_labels_wait_on_a_stub_for_the_profile(writer: Writer, look: Look) -> None:
    """A profile of a view without such columns leaves them, and is judged by them."""
    look(
        "update crm.tenants set marketing_rules = %s returning 1",
        MarketingRules(excluded_tags=frozenset({"SE"})).written(),
    )
    write(writer, said("SE"), said("00011", kind="group"))
    (stub,) = look("select is_stub, marketable from crm.players")
    assert (stub["is_stub"], stub["marketable"]) == (True, False)
    writer.profiles({"external_id": "7"})
    (player,) = look("select marketable, eligible from crm.players")
    assert (player["marketable"], player["eligible"]) == (False, False)
    assert lists(look) == (["SE"], ["00011"])


def test_a_label_that_excludes_goes_before_everything(writer: Writer, look: Look) -> None:
    """It is an exclusion when it comes, and when it goes the player is marketed to again."""
    look(
        "update crm.tenants set marketing_rules = %s returning 1",
        MarketingRules(excluded_groups=frozenset({"00011"})).written(),
    )
    writer.profiles({"external_id": "7"})
    for present, marketable, marked in ((True, False, 1), (False, True, 1)):
        write(writer, said("00011", kind="group", present=present, minutes=present is False))
        assert look("select marketable from crm.players") == [{"marketable": marketable}]
        assert len(look("select from crm.player_changes where reason = 'exclusion'")) == marked


def test_a_profile_with_lists_of_its_own_wins(writer: Writer, look: Look) -> None:
    """What is said one by one is kept, and shown only where the view has no such column."""
    write(writer, said("vip"), said("00011", kind="group"))
    writer.profiles({"external_id": "7", "tags": '["x"]'})
    assert lists(look) == (["x"], ["00011"])
    write(writer, said("gold"), said("00012", kind="group"))
    assert lists(look) == (["x"], ["00011", "00012"])
    writer.profiles({"external_id": "7", "tags": None})
    write(writer, said("silver"))
    assert lists(look) == (["gold", "silver", "vip"], ["00011", "00012"])


# From the view to the store -----------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "ext_brand_id varchar(20), user_ext_id varchar(40), dt_update STAMP, {label} varchar(200), removed varchar(9), "
    "primary key (ext_brand_id, user_ext_id, {label})"
)


class House:
    """An operator whose labels are rows, and the store that reads them."""

    def __init__(self, operator: Any, store: database.Database) -> None:
        self.operator, self.store = operator, store
        self.start = "beginning"
        stamp = {"postgresql": "timestamptz", "mysql": "datetime(6)"}[operator.family]
        for name, label in (("user_tags", "tag"), ("user_groups", "group_code")):
            operator.execute(
                f"create table {name}_rows ({_COLUMNS.format(label=label).replace('STAMP', stamp)})",
                f"create view {name} as select * from {name}_rows",
            )

    def label(self, name: str, player: str, label: str, minutes: int, removed: str | None = "0") -> None:
        """Write a row anew."""
        column = "tag" if name == "user_tags" else "group_code"
        self.operator.execute(f"delete from {name}_rows where user_ext_id = '{player}' and {column} = '{label}'")
        stamp = (NOON + timedelta(minutes=minutes)).strftime("%Y-%m-%d %H:%M:%S")
        self.operator.fill(f"{name}_rows", [("kaasino", player, stamp, label, removed)])

    @property
    def settings(self) -> config.Config:
        """The configuration."""
        source = {"name": "casino", "url": self.operator.url, "lateness": "1s", "page_rows": 3}
        source["streams"] = {"user_tags": {"start": self.start}, "user_groups": {}}
        document = {"tenant": TENANT, "store": {"url": self.store.url}, "web": None, "sources": [source]}
        return config.parse({**document, "exclude": {"tags": ["SE"]}}, streams=list(STREAMS))

    def once(self) -> dict[str, Any]:
        """Read to the heads; return what stopped."""
        return application.build(self.settings, once=True).run_once(threading.Event())


@pytest.fixture(params=["postgresql", "mysql"])
def house(request: pytest.FixtureRequest, operator_of: Callable[[str], Any], store: database.Database) -> House:
    """Give an operator on a server of every family."""
    return House(operator_of(request.param), store)


def test_labels_are_read_kept_up_to_date_and_counted(house: House, look: Look) -> None:
    """Pages, a label that is taken away, one given anew, a new one; rows are counted once as they come."""
    for number in range(8):
        house.label("user_tags", "7", f"t{number}", number)
    house.label("user_groups", "7", "00011", 0)
    assert house.once() == {}
    assert lists(look) == ([f"t{number}" for number in range(8)], ["00011"])
    house.label("user_tags", "7", "t3", 20, removed="Y")
    house.label("user_tags", "8", "SE", 21, removed=None)
    assert house.once() == {}
    assert lists(look)[0] == [f"t{number}" for number in range(8) if number != 3]
    assert lists(look, "8") == (["SE"], None)
    rows = {row["stream"]: row["rows"] for row in look("select stream, rows from crm.checkpoints")}
    assert rows == {"user_tags": 10, "user_groups": 1}


def test_a_label_that_cannot_be_read_is_refused_and_read_again(house: House, look: Look) -> None:
    """Whether it was given or taken may be about an exclusion: the row waits, and is read when it is mended."""
    from connector import backfill, retry
    from connector.store.quarantine import Selection

    house.label("user_tags", "7", "SE", 1, removed="perhaps")
    house.label("user_tags", "7", "l" * 129, 2)
    house.label("user_tags", "7", "vip", 3)
    assert house.once() == {}
    assert lists(look) == (["vip"], None)
    refused = look("select field, reason from crm.quarantine order by field")
    assert [tuple(row.values()) for row in refused] == [("is_deleted", "not a boolean"), ("tag", "too long for an id")]
    house.label("user_tags", "7", "SE", 1, removed="f")
    with application.desk(house.settings, source="casino", stream="user_tags", purpose="retry") as desk:
        done = retry.run(desk, backfill.open_stream(desk, "user_tags"), Selection(), report=lambda _: None)
    assert done.made == 1
    assert lists(look) == (["SE", "vip"], None)


def test_labels_of_the_past_are_filled_in(house: House, look: Look) -> None:
    """A backfill reads what lies below a start at the head; what was read since is newer."""
    from connector import backfill

    house.start = "now"
    for number in range(5):
        house.label("user_tags", "7", f"t{number}", number)
    assert house.once() == {}
    house.label("user_tags", "7", "t1", 20, removed="Y")
    assert house.once() == {}
    with application.desk(house.settings, source="casino", stream="user_tags") as desk:
        stream = backfill.open_stream(desk, "user_tags")
        job = backfill.prepare(desk, stream, since=None, until=None)
        backfill.run(desk, stream, job, send_to={}, report=lambda _: None, stopped=lambda: False)
    assert lists(look)[0] == ["t0", "t2", "t3", "t4"]


def test_labels_are_not_audited(house: House) -> None:
    """The command says why, the daemon's own audit leaves them alone."""
    house.label("user_tags", "7", "vip", 1)
    assert house.once() == {}
    assert "not audited" in str(audit.skipped("user_tags"))
    assert audit.skipped("user_profile") is None
    app = application.build(house.settings)
    try:
        (auditor,) = app.auditors
        with structlog.testing.capture_logs() as logs:
            assert not auditor.run_once().busy
        assert [line for line in logs if line["event"].startswith("audit.")] == []
    finally:
        app.close()
