"""Rates on a timeline: the latest at or before an event is locked on it, once, whenever it comes."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from connector import app as application, audit, checks, config
from connector.errors import LeaseLost, Misconfigured
from connector.money import Rates
from connector.normalised import RATES, Normalised
from connector.store import pending, rates as timeline
from connector.store.commit import Batch
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from connector.store.database import Database

Writer = Any
Look = Any
House = Any
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
FIXED: Final = {"USD": Decimal("0.92")}
TABLE: Final = Rates("EUR", FIXED)
_RUNS: Final = itertools.count(1)


def at(hour: float) -> datetime:
    """Return an instant of the day."""
    return DAY + timedelta(hours=hour)


def told(*rows: tuple[str, float, str], base: str | None = None) -> pl.DataFrame:
    """Return rates (currency, hour, rate)."""
    listed = [(base, currency, at(hour), Decimal(rate)) for currency, hour, rate in rows]
    return pl.DataFrame(listed, schema=RATES, orient="row")


def bring(writer: Writer, *rows: tuple[str, float, str], base: str | None = None) -> None:
    """Commit a page of the stream fx_rates."""
    stream = replace(writer.checkpoint, stream="fx_rates")
    writer.commit(Batch(stream, Normalised(rates=told(*rows, base=base)), rows=len(rows)))


def drain(writer: Writer) -> int:
    """Settle everything that can be settled; returns in how many transactions."""
    tenant, pieces = writer.checkpoint.tenant, 0
    while pending.settle_due(writer.connection, tenant, writer.rates, writer.lease):
        pieces += 1
    return pieces


def deposit(key: str, amount: str, currency: str | None, hour: float = 12, **changes: Any) -> dict[str, Any]:
    """Return a deposit of player 7."""
    plain = {"key": key, "external_id": "7", "amount": Decimal(amount), "currency": currency, "occurred_at": at(hour)}
    return {**plain, **changes}


def subunits(amount: Decimal, rate: Decimal) -> int:
    """Return what an amount comes to, in cents: Decimal arithmetic, half to even."""
    return int(EXACT.quantize(EXACT.multiply(amount, rate), Decimal("0.01")).scaleb(2))


# Any order ----------------------------------------------------------------------------------------------------------

_OWN: Final = {0: "EUR", 1: "GBP", 2: "FUN", 3: None}
_KINDS: Final = (
    ("deposit_confirmed", "deposited", 1, None),
    ("withdrawal_confirmed", "withdrawn", 1, None),
    ("bet_placed", "wagered", 1, None),
    ("bet_settled", "won", 1, Decimal("1.005")),
    ("custom_deposit_reversed", "deposited", -1, None),
    ("withdrawal_requested", None, 1, None),
)
_CURRENCIES: Final = (None, "GBP", "ETH", "USD", None, "FUN", "EUR", "XXX", "GBP")


def _event(run: int, key: int) -> dict[str, Any]:
    """Return the event that this key always is."""
    name, effect, sign, stake = _KINDS[key % len(_KINDS)]
    amount, currency = Decimal(key * 7919 % 100_003) / 1000, _CURRENCIES[key * 5 % len(_CURRENCIES)]
    who = {"key": f"{run}.{key}", "external_id": f"{run}.{key % 4}", "occurred_at": at(key * 7 % 24)}
    return {**who, "name": name, "effect": effect, "sign": sign, "stake": stake, "amount": amount, "currency": currency}


@dataclass
class Model:
    """The same in plain Python: what each event is locked at, given what was known when."""

    run: int
    rates: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    profiles: set[int] = field(default_factory=set)
    currency: dict[int, str | None] = field(default_factory=dict)
    locked: dict[int, Decimal] = field(default_factory=dict)

    def events(self, keys: Sequence[int]) -> None:
        """Take events: a currency of their own, or of their player if that is known."""
        for key in keys:
            if key not in self.currency:
                user = key % 4
                own = _event(self.run, key)["currency"]
                self.currency[key] = own or (_OWN[user] if user in self.profiles else None)
                self._lock(key)

    def profile(self, user: int) -> None:
        """Take a profile: what waited for its currency has it."""
        self.profiles.add(user)
        for key, currency in self.currency.items():
            if key % 4 == user and currency is None:
                self.currency[key] = _OWN[user]
        self.settle()

    def settle(self) -> None:
        """Look again at all that waits."""
        for key in self.currency:
            self._lock(key)

    def _lock(self, key: int) -> None:
        currency = self.currency[key]
        if currency is None or key in self.locked:
            return
        happened = key * 7 % 24
        known = {hour: rate for (name, hour), rate in self.rates.items() if name == currency and hour <= happened}
        constant = {"EUR": Decimal(1), **FIXED}.get(currency)
        rate = constant or (known[max(known)] if known and currency != "FUN" else None)
        if rate is not None:
            self.locked[key] = rate

    def rows(self) -> dict[str, tuple[str | None, Decimal | None, int | None, int | None]]:
        """Return what each event shows."""
        shown = {}
        for key, currency in self.currency.items():
            event, rate = _event(self.run, key), self.locked.get(key)
            base, stake = (
                None if rate is None or amount is None else subunits(amount, rate)
                for amount in (event["amount"], event["stake"])
            )
            shown[event["key"]] = (currency, rate, base, stake)
        return shown

    def totals(self) -> dict[tuple[str, str], int]:
        """Return every player's base totals and counts that are not zero."""
        found: dict[tuple[str, str], int] = {}
        for key, (currency, _, base, stake) in zip(self.currency, self.rows().values(), strict=True):
            event = _event(self.run, key)
            sign, player = event["sign"], event["external_id"]
            parts = [(event["effect"], sign * (base or 0)), ("wagered", sign * (stake or 0))]
            if currency not in {None, "FUN"}:
                counted = {"deposited": "deposit_count", "withdrawn": "withdrawal_count", "wagered": "bet_count"}
                parts.append((counted.get(event["effect"], "bet_count" if event["stake"] else ""), sign))
            for name, amount in parts:
                found[player, name] = found.get((player, name), 0) + amount
        return {place: total for place, total in found.items() if total and place[1]}


_EVENTS: Final = st.tuples(st.just("events"), st.lists(st.integers(0, 47), min_size=1, max_size=12))
_RATES: Final = st.tuples(
    st.just("rates"),
    st.lists(
        st.tuples(
            st.sampled_from(["GBP", "ETH", "USD", "FUN", "EUR"]),
            st.integers(0, 23),
            st.decimals(Decimal("0.000001"), 3000, places=6),
        ),
        min_size=1,
        max_size=6,
    ),
)
_PROFILE: Final = st.tuples(st.just("profile"), st.integers(0, 3))
_SETTLE: Final = st.tuples(st.just("settle"), st.none())
_WRONG: Final = [
    ("events", list(range(48))),
    *(("profile", user) for user in range(4)),
    ("rates", [("ETH", 0, Decimal(2500))]),
    ("settle", None),
]


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.one_of(_EVENTS, _EVENTS, _RATES, _RATES, _PROFILE, _SETTLE), min_size=1, max_size=12))
@example(_WRONG)
@example([*_WRONG, ("rates", [("ETH", 0, Decimal(2600)), ("GBP", 5, Decimal("1.1"))]), ("settle", None)])
def test_events_and_rates_in_any_order_give_the_amounts_of_plain_arithmetic(
    writer: Writer, look: Look, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, Any]]
) -> None:
    """Each event is locked once, at what was known then or came later; totals follow once; play money never does."""
    monkeypatch.setattr(pending, "PIECE", 3)
    run = next(_RUNS)
    writer.rates, writer.checkpoint = TABLE, replace(writer.checkpoint, tenant=f"t{run}")
    model = Model(run)
    for kind, given_ in [*steps, ("settle", None)]:
        if kind == "events":
            writer.events(*(_event(run, key) for key in given_), fresh=len(given_) % 2 == 0)
            model.events(given_)
        elif kind == "rates":
            bring(writer, *((currency, hour, str(rate)) for currency, hour, rate in given_))
            model.rates |= {(currency, hour): rate for currency, hour, rate in given_}
        elif kind == "profile":
            writer.profiles({"external_id": f"{run}.{given_}", "default_currency_code": _OWN[given_]})
            drain(writer)
            model.profile(given_)
        else:
            drain(writer)
            model.settle()
    rows = look(
        "select e.* from crm.event_rows e join crm.event_streams s using (stream_id) where tenant = %s", f"t{run}"
    )
    assert {
        row["key"]: (row["currency"], row["fx_rate_locked"], row["amount_base"], row["stake_base"]) for row in rows
    } == model.rows()
    columns = {f"total_{name}": name for name in ("deposited", "withdrawn", "wagered", "won")}
    columns |= {name: name for name in ("deposit_count", "withdrawal_count", "bet_count")}
    players = look("select * from crm.players where tenant = %s", f"t{run}")
    assert {
        (row["external_id"], name): row[column] for row in players for column, name in columns.items() if row[column]
    } == model.totals()
    waits = {key for key, currency in model.currency.items() if key not in model.locked and currency != "FUN"}
    assert sum(pending.waiting(writer.connection, f"t{run}").values()) == len(waits)
    assert look("select * from crm.fx_due") == []


# One by one ---------------------------------------------------------------------------------------------------------


def test_the_latest_rate_at_or_before_an_event_counts(writer: Writer, look: Look) -> None:
    """To the microsecond; one that is later says nothing of what was."""
    bring(writer, ("GBP", 1, "1.1"), ("GBP", 2, "1.2"), ("GBP", 3, "1.3"), ("ETH", 1, "2500"))
    writer.rates = TABLE
    moment = timedelta(microseconds=1)
    for key, happened in {"a": at(2), "b": at(3) - moment, "c": at(3), "d": at(9), "e": at(1) - moment}.items():
        writer.events(deposit(key, "1", "GBP", occurred_at=happened))
    found = {row["key"]: row["fx_rate_locked"] for row in look("select key, fx_rate_locked from crm.event_rows")}
    expected = {"a": "1.2", "b": "1.2", "c": "1.3", "d": "1.3"}
    assert found == {**{key: Decimal(rate) for key, rate in expected.items()}, "e": None}


def test_a_page_asks_for_its_rates_once_and_not_at_all_where_they_are_fixed(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows and currencies; fixed, base and play money need no look."""
    asked = []
    ask = timeline._timeline
    monkeypatch.setattr(timeline, "_timeline", lambda *args: (asked.append(args), ask(*args))[1])
    writer.rates = TABLE
    writer.events(*(deposit(f"f{n}", "1", ("EUR", "USD", "FUN")[n % 3], hour=n % 24) for n in range(60)))
    assert asked == []
    bring(writer, ("GBP", 0, "1.1"), ("ETH", 0, "2500"))
    writer.events(*(deposit(f"t{n}", "1", ("GBP", "ETH", "EUR", None)[n % 4], hour=n % 24) for n in range(60)))
    assert len(asked) == 1


def test_a_corrected_rate_holds_from_then_on(writer: Writer, look: Look) -> None:
    """What is locked stays; who told a rate first may correct it, another origin may not."""
    writer.rates = TABLE
    bring(writer, ("GBP", 0, "1.1"))
    writer.events(deposit("before", "1", "GBP"))
    bring(writer, ("GBP", 0, "1.2"))
    writer.events(deposit("after", "1", "GBP"))
    timeline.insert(writer.connection, writer.checkpoint.tenant, told(("GBP", 0, "9")), TABLE, origin="file")
    drain(writer)
    rows = look("select key, fx_rate_locked from crm.event_rows")
    assert {row["key"]: row["fx_rate_locked"] for row in rows} == {"before": Decimal("1.1"), "after": Decimal("1.2")}
    assert [(row["rate"], row["origin"]) for row in look("select * from crm.fx_rates")] == [
        (Decimal("1.2"), "casino.fx_rates")
    ]


def test_rates_of_another_base_and_of_play_money_are_left_out(writer: Writer, look: Look) -> None:
    """They say nothing of this tenant's money."""
    writer.rates = TABLE
    bring(writer, ("GBP", 0, "1.3"), base="USD")
    bring(writer, ("FUN", 0, "1"), ("EUR", 0, "2"))
    assert look("select * from crm.fx_rates") == []
    bring(writer, ("GBP", 0, "1.1"), base="EUR")
    writer.events(deposit("f", "5", "FUN"), deposit("e", "5", "EUR"))
    assert [(row["key"], row["amount_base"]) for row in look("select * from crm.event_rows order by key")] == [
        ("e", 500),
        ("f", None),
    ]


def test_a_new_fixed_rate_settles_what_waited(writer: Writer, look: Look) -> None:
    """A configuration may bring what no stream did; the player is sent anew since their deposits' sum has moved."""
    writer.profiles({"external_id": "7"})
    writer.events(*(deposit(f"d{n}", "10", "GBP") for n in range(5)))
    writer.rates = TABLE
    writer.events(*(deposit(f"x{n}", "10", "CHF") for n in range(5)))
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {"CHF": 5}
    (before,) = look("select change_seq from crm.player_changes where reason = 'profile'")
    assert drain(writer) == 0
    writer.rates = Rates("EUR", {**FIXED, "CHF": Decimal("1.05")})
    assert drain(writer) == 1
    assert drain(writer) == 0
    (player,) = look("select * from crm.players")
    assert (player["total_deposited"], player["deposit_count"]) == (5 * 1170 + 5 * 1050, 10)
    (after,) = look("select change_seq from crm.player_changes where reason = 'profile'")
    assert after["change_seq"] > before["change_seq"]
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {}


def test_much_that_waited_is_settled_in_pieces(writer: Writer, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a page of profiles nor one of rates holds up the store for all that hangs on it."""
    monkeypatch.setattr(pending, "PIECE", 10)
    writer.rates = TABLE
    writer.events(*(deposit(f"n{n}", "1", None) for n in range(35)))
    writer.events(*(deposit(f"c{n}", "1", "GBP") for n in range(35)))
    writer.profiles({"external_id": "7", "default_currency_code": "USD"})
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {"GBP": 35, "unknown": 25}
    bring(writer, ("GBP", 0, "2"))
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {"GBP": 35, "unknown": 25}
    assert drain(writer) >= 7
    assert [row["total_deposited"] for row in look("select * from crm.players")] == [35 * 92 + 35 * 200]
    money = look("select currency, deposited, deposit_count from crm.player_money order by 1")
    assert [tuple(row.values()) for row in money] == [("GBP", 35, 35), ("USD", 35, 35)]


def test_who_has_lost_the_lease_settles_nothing(writer: Writer, look: Look) -> None:
    """A frozen process that wakes up leaves it to its successor."""
    writer.rates = TABLE
    writer.events(deposit("d", "1", "GBP"))
    bring(writer, ("GBP", 0, "2"))
    look("update crm.leases set epoch = epoch + 1 returning 1")
    with pytest.raises(LeaseLost):
        drain(writer)
    assert [row["amount_base"] for row in look("select * from crm.event_rows")] == [None]
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {"GBP": 1}


def test_an_amount_that_no_total_can_hold_waits_for_nothing(writer: Writer, look: Look) -> None:
    """It has a rate, and would not fit: it is kept in its own currency, and looked at no more."""
    writer.rates = TABLE
    writer.events(deposit("huge", "9999999999999", "ETH"))
    bring(writer, ("ETH", 0, "30000000"))
    drain(writer)
    assert pending.waiting(writer.connection, writer.checkpoint.tenant) == {}
    assert [row["amount_base"] for row in look("select * from crm.event_rows")] == [None]
    assert [row["deposited"] for row in look("select * from crm.player_money")] == [9999999999999]


# By stream, file and configuration ----------------------------------------------------------------------------------


def _document(house: House, **changes: Any) -> config.Config:
    source = {**house.source, "url": house.operator.url}
    raw = {"tenant": "kaasino", "store": {"url": house.store.url}, "web": None, "sources": [source], **changes}
    return config.parse(raw, streams=list(STREAMS))


def _once(settings: config.Config) -> None:
    assert application.build(settings, once=True).run_once(threading.Event()) == {}


_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}


def test_rates_of_a_view_settle_what_was_read_before(house: House) -> None:
    """A stream like any other, on every server: a rate that comes late reaches the totals, and its row may be mended."""
    stamp = _STAMP[house.operator.family]
    house.operator.execute(
        f"create table fx_rates_rows (dt_update {stamp}, base varchar(5), currency varchar(5), valid_from {stamp},"
        " rate decimal(38,18), primary key (base, currency, valid_from))",
        "create view fx_rates as select * from fx_rates_rows",
    )
    house.source["streams"] = {"fx_rates": {}, "deposits": {}}
    house.deposits(1, 3)
    house.operator.execute("update deposits_rows set currency = 'ETH'")
    _once(_document(house))
    assert house.look("select currency, count(*) from crm.fx_pending group by 1") == [("ETH", 3)]
    stamped = "2026-01-05 13:00:00"
    for base, rate in (("EUR", "2500.5"), ("USD", "1")):
        house.operator.execute(
            f"insert into fx_rates_rows values ('{stamped}', '{base}', 'ETH', '2026-01-05 00:00:00', {rate})"
        )
    _once(_document(house))
    assert house.look("select total_deposited, deposit_count from crm.players") == [(3 * 2_500_500, 3)]
    assert house.look("select count(*) from crm.fx_pending") == [(0,)]
    house.operator.execute("update fx_rates_rows set rate = 1000, dt_update = '2026-01-05 14:00:00' where base = 'EUR'")
    house.deposits(4, 4)
    house.operator.execute("update deposits_rows set currency = 'ETH' where transaction_id = 'd4'")
    _once(_document(house))
    assert house.look("select total_deposited from crm.players") == [(3 * 2_500_500 + 1_000_000,)]
    assert house.state("fx_rates") == ("running", None)


def test_the_file_is_read_at_every_start(house_on: Any, tmp_path: Path) -> None:
    """What it says anew holds from the next start on; a bad one stops the start with every line that is wrong."""
    house = house_on("postgresql")
    house.source["streams"] = {"deposits": {}}
    house.deposits(1, 2)
    house.operator.execute("update deposits_rows set currency = 'GBP'")
    path = tmp_path / "rates.csv"
    path.write_text("currency,valid_from,rate\nCHF,2026-01-01,1.05\n")
    _once(_document(house, fx={"file": str(path)}))
    assert house.look("select total_deposited from crm.players") == [(0,)]
    path.write_text("currency,valid_from,rate,base\nGBP,2026-01-01,1.17,EUR\nGBP,2026-01-01,5,USD\n")
    _once(_document(house, fx={"file": str(path)}))
    assert house.look("select total_deposited from crm.players") == [(2340,)]
    path.write_text("currency,valid_from,rate\nGBP,soon,1\nGBP,2026-01-02,-1\n")
    with pytest.raises(Misconfigured, match=r"2 mistake\(s\)") as caught:
        application.build(_document(house, fx={"file": str(path)}))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()[1:3]] == ["  line 2", "  line 3"]


def test_check_names_the_currencies_that_have_no_rate(house: House, tmp_path: Path) -> None:
    """Before a single row waits: seen in a view, and neither fixed, in the file, in the rates' own view nor stored."""

    def said(**fx: Any) -> list[tuple[str, str]]:
        found = checks.check(_document(house, fx=fx))
        return [(one.level, one.text) for one in found if one.subject == "fx"]

    house.deposits(1, 5)
    for number, currency in enumerate(("GBP", "CHF", "FUN", "EUR", "ETH"), start=1):
        house.operator.execute(f"update deposits_rows set currency = '{currency}' where transaction_id = 'd{number}'")
    house.source["streams"] = {"deposits": {}}
    everything = "no rate for CHF, ETH, GBP, seen in casino.deposits"
    assert said() == [("warn", everything)]
    path = tmp_path / "rates.csv"
    path.write_text("currency,valid_from,rate\nCHF,2026-01-01,1.05\n")
    told = ("ok", f"1 rate(s) in {path}")
    assert said(fixed={"ETH": "2500"}, file=str(path)) == [told, ("warn", "no rate for GBP, seen in casino.deposits")]
    stamp = _STAMP[house.operator.family]
    house.operator.execute(
        f"create table fx_rates (dt {stamp}, currency varchar(5), ts {stamp}, rate decimal(38,18))",
        "insert into fx_rates values ('2026-01-05 00:00:00', 'GBP', '2026-01-01 00:00:00', 1.17)",
    )
    house.source["streams"] = {"deposits": {}, "fx_rates": {}}
    assert said(fixed={"ETH": "2500"}, file=str(path)) == [told]
    house.source["streams"] = {"deposits": {}}
    path.write_text("currency,valid_from\n")
    assert [level for level, _ in said(file=str(path))] == ["error", "warn"]
    house.source["streams"] = {"fx_rates": {}}
    _once(_document(house))
    house.source["streams"] = {"deposits": {}}
    assert said(fixed={"ETH": "2500", "CHF": "1.05"}) == []


def test_a_source_in_subunits_is_stored_in_units_and_audited(house: House) -> None:
    """10^9 there is one here; an audit finds nothing to mend, and a row that is missing."""
    house.source["streams"] = {"deposits": {}}
    house.source["scales"] = {"ETH": 9, "EUR": 2}
    house.deposits(1, 4, amount="1500000000")
    house.operator.execute("update deposits_rows set currency = 'ETH' where transaction_id in ('d1', 'd2')")
    house.settle()
    assert house.look("select currency, amount::text from crm.events order by key") == [
        ("ETH", "1.5"),
        ("ETH", "1.5"),
        ("EUR", "15000000"),
        ("EUR", "15000000"),
    ]
    assert house.look("select total_deposited from crm.players") == [(3_000_000_000,)]
    settings = house.settings
    for lost in (0, 1):
        if lost:
            house.look("delete from crm.event_rows where key = 'd1'; select 1")
        with application.desk(settings, source="casino", stream="deposits", purpose="audit") as desk:
            stream = audit.open_stream(desk, "deposits")
            assert stream is not None
            found = audit.Audit(desk, stream, "command", audit.promised(desk, stream), repair=True).run()
        assert (found.rows, found.missing, found.repaired, found.changed) == (4, lost, lost, 0)


def test_another_subunit_of_the_base_currency_is_refused(store: Database) -> None:
    """Totals of two scales can't be added."""
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    raw = {"store": {"url": store.url}, "web": None, "base_currency": "SOL", "currencies": {"SOL": 8}}
    raw["sources"] = [{"name": "casino", "url": url, "streams": {"deposits": {}}}]
    application.build(config.parse(raw)).close()
    application.build(config.parse(raw)).close()
    with pytest.raises(Misconfigured, match="started with 8"):
        application.build(config.parse({**raw, "currencies": {"SOL": 6}}))


def test_waiting_events_of_another_tenant_are_none_of_ours(writer: Writer, store: Database) -> None:
    """Rates are a tenant's own."""
    writer.rates = TABLE
    writer.events(deposit("d", "1", "GBP"))
    bring(writer, ("GBP", 0, "2"))
    with psycopg.connect(store.url, autocommit=True) as connection:
        assert pending.waiting(connection, "other") == {}
    assert not pending.settle_due(writer.connection, "other", TABLE, writer.lease)
    assert pending.settle_due(writer.connection, writer.checkpoint.tenant, TABLE, writer.lease)
