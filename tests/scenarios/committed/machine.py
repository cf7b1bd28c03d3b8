"""A state machine over a casino and its connector, and what must hold of the store after each of its steps."""

from __future__ import annotations

import math
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from connector.position import EARLIEST
from tests.scenarios.committed.casino import WRITERS, Casino
from tests.scenarios.committed.tables import KEYS, SECOND, Row

if TYPE_CHECKING:
    from connector.cycle import Result
    from tests.scenarios.committed.daemon import Daemon, Places

#: Passes after which a connector that is left alone has come to rest, in pages of two rows at worst.
MOST_PASSES: Final = 200
#: What breaks a commit, and so waits for one.
IN_A_COMMIT: Final = ("refuse", "lose", "commit and lose")
BEFORE_ALL: Final = (EARLIEST, ())
#: What a clock of the operator's may be ahead by where progress is judged by rows.
MOST_AHEAD: Final = 4

Doing = tuple[str, dict[str, Any]]


def doing(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Doing]:
    """Return what can be done under a name, with these arguments."""
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Return one of several strategies, each as often as its number says."""
    chosen = [strategy for times, strategy in choices for _ in range(times)]
    return st.sampled_from(range(len(chosen))).flatmap(chosen.__getitem__)


indexes = st.integers(0, WRITERS - 1)
#: Of the open transactions the young end more often, and the old grow old.
newest_first = st.sampled_from([-1, -1, -1, -1, -2, -2, 0])
#: Seconds that pass, on both sides of every age at which rows are read again; None: all until the next deadline.
pauses = st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.5, 6.0, 15.0, 33.0, None, None, None, None])
business = weighted(
    (2, doing("begin", at_begin=st.booleans(), ids=st.integers(0, 3))),
    (
        8,
        doing(
            "write",
            index=indexes,
            stream=indexes,
            user=st.sampled_from(["1", "2", "007"]),
            rows=st.integers(1, 4),
            tie=st.booleans(),
            lie=st.sampled_from([0, 0, 0, -3, -1, 2, 4, 8]),
        ),
    ),
    (5, doing("commit", index=newest_first)),
    (1, doing("roll back", index=newest_first)),
    (3, doing("pass time", seconds=pauses)),
    (1, doing("touch", stream=indexes, row=st.integers(0, 20))),
    (1, doing("stop replay")),
    (1, doing("replay")),
)
restarts = weighted(*((1, doing(name)) for name in ("kill", "stop", "cut")))
accidents = weighted(*((1, doing(name)) for name in ("cut", "kill", *IN_A_COMMIT)))
history = doing("read history", stream=indexes, back=st.integers(0, 30), pages=st.integers(1, 4))
#: Before a pass, and at a point of a pass, by its number.
before = st.lists(weighted((20, business), (2, restarts), (1, history)), max_size=10)
meanwhile = st.lists(st.tuples(st.integers(1, 12), weighted((2, business), (1, accidents))), max_size=3)
#: What a whole scenario goes without: rare meetings need scenarios that are about little else.
without = st.sets(
    st.sampled_from(["roll back", "touch", "kill", "stop", "cut", *IN_A_COMMIT, "read history"]), max_size=4
)


class CommittedIsStored(RuleBasedStateMachine):
    """The model is the list of rows that the casino has committed; nothing here knows how the connector works."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.daemon: Daemon = daemon
        self.casino: Casino = daemon.casino
        self.streams: list[str] = []
        self.without: set[str] = set()
        self.sealed: Places = {}
        self.script: list[tuple[int, Doing]] = []
        self.points = 0
        self.daemon.at_point = self.at_point

    @initialize(
        streams=st.lists(st.sampled_from(list(KEYS)), min_size=1, unique=True),
        lateness=st.sampled_from([8, 40]),
        told=st.booleans(),
        numbered=st.booleans(),
        page_rows=st.sampled_from([2, 3, 8]),
        without=without,
    )
    def start(
        self, *, streams: list[str], lateness: int, told: bool, numbered: bool, page_rows: int, without: set[str]
    ) -> None:
        """Start with nothing. A replica may be unable to tell its progress; a primary of PostgreSQL never is."""
        told = told or self.casino.operator.name == "postgresql"
        self.casino.clear(lateness=lateness)
        self.casino.witness = self.none_is_sealed
        self.daemon.clear(streams=streams, told=told, numbered=numbered, page_rows=page_rows)
        self.streams, self.without = streams, without

    @rule(before=before, seconds=pauses, meanwhile=meanwhile)
    def make_a_pass(self, *, before: list[Doing], seconds: float | None, meanwhile: list[tuple[int, Doing]]) -> None:
        """Make a pass, after some business and in the middle of some. The only rule: no scenario goes without."""
        for what, how in before:
            self.do(what, how)
        self.pass_time(seconds)
        self.script, self.points = list(meanwhile), 0
        self.daemon.poll()
        self.script = []
        self.look()

    def at_point(self, kind: str) -> None:
        """Do what the script says of this point of a pass."""
        self.points += 1
        for step in list(self.script):
            at, (what, how) = step
            if at <= self.points and (kind == "commit" or what not in IN_A_COMMIT):
                self.script.remove(step)
                if what == "kill" or what in IN_A_COMMIT:
                    self.daemon.fail(what)
                self.daemon.undisturbed(self.do, what, how)

    def do(self, what: str, how: dict[str, Any]) -> None:
        """Do one thing, where it can be done."""
        casino, daemon = self.casino, self.daemon
        casino.pass_time()
        if "stream" in how:
            how = how | {"stream": self.streams[how["stream"] % len(self.streams)]}
        if what in self.without:
            return
        if what == "begin":
            if len(casino.open) < WRITERS:
                casino.begin(**how)
        elif what in {"write", "commit", "roll back"}:
            self.write_or_end(what, **how)
        else:
            {
                "pass time": self.pass_time,
                "touch": casino.touch,
                "stop replay": casino.stop_replay,
                "replay": casino.replay,
                "cut": casino.cut,
                "kill": daemon.kill,
                "stop": daemon.stop,
                "read history": daemon.backfill,
            }[what](**how)
        casino.settle()

    def write_or_end(self, what: str, index: int, **how: Any) -> None:
        """Write in an open transaction, by its index, or in a new one; or end one."""
        casino = self.casino
        if what == "write":
            writer = casino.open[index] if index < len(casino.open) else casino.begin(at_begin=False, ids=0)
            casino.write(writer, **how | {"lie": how["lie"] if self.daemon.told else min(how["lie"], MOST_AHEAD)})
        elif casino.open:
            writer = casino.open[index % len(casino.open)]
            (casino.commit if what == "commit" else casino.roll_back)(writer)

    def pass_time(self, seconds: float | None) -> None:
        """Let time pass, or as much of it as the first of the open transactions has."""
        due = self.casino.open[0].deadline if self.casino.open else math.inf
        if seconds is not None:
            self.casino.pass_time(int(seconds * SECOND))
        elif due < math.inf:
            self.casino.pass_time(int(due) - self.casino.time.now)

    # What must hold -------------------------------------------------------------------------------------------------

    def none_is_sealed(self, rows: list[Row]) -> None:
        """Check rows that become visible, or still may: sealed means that none can."""
        sealed = self.daemon.sealed()
        assert [row for row in rows if row.place <= sealed.get(row.stream, BEFORE_ALL)] == [], f"sealed: {sealed}"

    def look(self) -> None:
        """Check the store after a pass."""
        before, self.sealed = self.sealed, self.daemon.sealed()
        assert [stream for stream, place in before.items() if self.sealed[stream] < place] == [], "sealed goes back"
        self.none_is_sealed(self.casino.invisible)
        keys, profiles = self.daemon.keys(), self.daemon.profiles()
        visible = [row for rows in self.casino.visible.values() for row in rows.values()]
        assert [
            row
            for row in visible
            if row.place <= self.sealed.get(row.stream, BEFORE_ALL)
            and (profiles.get(row.key) != (row.mark, row.name) if row.name else (row.stream, row.key) not in keys)
        ] == [], f"not in the store, and sealed: {self.sealed}"
        assert set(keys) - {(row.stream, row.key) for row in visible} == set(), "never committed"

    def teardown(self) -> None:
        """Let everything come to an end, and compare. A scenario that has failed, or is given up, needs no more."""
        if sys.exc_info()[0] is None and self.daemon.ready:
            self.end_everything()
            self.come_to_rest()
            self.store_equals_casino()

    def end_everything(self) -> None:
        """Commit what is open and let a standby replay it."""
        while self.casino.open:
            self.do("commit", {"index": 0})
        self.casino.replay()

    def come_to_rest(self) -> None:
        """Poll while all deadlines pass, until there is nothing to read and everything is sealed."""
        last = {name: max(row.place for row in rows.values()) for name, rows in self.casino.committed.items() if rows}
        sealed = False
        for _ in range(MOST_PASSES):
            self.casino.pass_time(self.casino.lateness + 10 * SECOND)
            if not sealed and (self.casino.standby is not None or not self.daemon.told):
                self.casino.pulse(self.streams[0])
            result: Result | None = self.daemon.poll()
            self.look()
            sealed = all(self.sealed.get(name, BEFORE_ALL) >= place for name, place in last.items())
            if sealed and result is not None and not result.busy:
                return
        raise AssertionError(f"no rest after {MOST_PASSES} passes: sealed {self.sealed}, committed {last}")

    def store_equals_casino(self) -> None:
        """Compare keys, money and profiles with what was committed."""
        committed = self.casino.committed
        rows = [*committed["deposits"].values(), *committed["casino_bets"].values()]
        assert self.daemon.keys() == Counter((row.stream, row.key) for row in rows)
        assert self.daemon.money() == {user: sums(rows, user) for user in {row.user for row in rows}}
        assert self.daemon.profiles() == {key: (row.mark, row.name) for key, row in committed["user_profile"].items()}
        assert self.daemon.refused() == []


def sums(rows: list[Row], user: str) -> tuple[int, ...]:
    """Return what `money` has to find of one user, added up row by row; native and base are the same in euros."""
    deposits, bets = (
        [row.amount for row in rows if (row.user, row.stream) == (user, stream)]
        for stream in ("deposits", "casino_bets")
    )
    return sum(deposits), sum(deposits), len(deposits), sum(bets), sum(bets), len(bets), len(bets)
