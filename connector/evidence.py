"""A bucket compared row by row: what is missing here, what the source no longer has, what has changed under its key.

The source is read first, the store after it, and what the store has too much is asked of the source again: rows that
move meanwhile are never mistaken. A suspect becomes missing only when its whole row, normalised as ever, gives an event
(or a rejection, or a newer profile) that is nowhere in the store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from connector import clock
from connector.buckets import GREATEST, LEAF_ROWS
from connector.errors import Transient
from connector.event import key_parts
from connector.money import plain
from connector.normalised import Normalised
from connector.position import Window
from connector.store.audits import Outcome
from connector.store.commit import Batch, commit
from connector.streams import values
from connector.streams.contract import Context
from connector.streams.instants import instants

if TYPE_CHECKING:
    from connector.buckets import Bucket
    from connector.poller import Desk, Stream
    from connector.sources.reader import View
    from connector.store.audits import Shelf

_EVENT: Final = ["brand_id", "key"]
_USER: Final = ["brand_id", "external_id"]
#: More suspects than this are not asked for one by one: the whole bucket is read.
_SINGLY: Final = 400
_AT_ONCE: Final = 100


@dataclass(frozen=True)
class Case:
    """One stream under audit: both of its sides, and whether what is missing is committed at once."""

    desk: Desk
    stream: Stream
    shelf: Shelf
    repair: bool
    #: When (by the monotonic clock) a bucket has taken too long: then it is halved.
    limit: float | None = None

    @property
    def by_update(self) -> bool:
        """Whether the stream is read along the stamp that players are stored with."""
        return self.stream.view.cursor == self.stream.binding.columns.get("dt_update")


@dataclass(frozen=True)
class Bounds:
    """A bucket as the source is asked for it: from `since` to `until`; rows beyond the bucket are left out."""

    bucket: Bucket
    since: str | None
    until: str


def compare(case: Case, bounds: Bounds) -> Outcome:
    """Compare a bucket row by row, and repair it if the case says so. Raises Transient: nothing was counted."""
    page = _promised(case, _read(case, bounds, values.identifying(case.stream.binding)))
    rows = values.identified(page, case.stream.binding)
    last = min(bounds.bucket.high - 1, GREATEST)
    rows = rows.filter(pl.col("mark").is_between(bounds.bucket.low, last).fill_null(value=True))
    judge = _compare_users if case.stream.binding.contract.reads_profiles else _compare_events
    return Outcome(rows.height) + judge(case, bounds, page, rows)


def _compare_events(case: Case, bounds: Bounds, page: pl.DataFrame, rows: pl.DataFrame) -> Outcome:
    stored = case.shelf.events(bounds.bucket)
    same = [*_EVENT, "mark", "amount"]
    suspects = rows.join(stored, on=same, how="anti", nulls_equal=True)
    other = stored.join(rows, on=same, how="anti", nulls_equal=True)  # of a key that has another event by now, or gone
    known = rows.join(stored, on=same, how="semi", nulls_equal=True).join(other, on=_EVENT, how="semi")
    case.shelf.remark(known.unique(_EVENT), case.desk.lease)
    gone = _gone_events(case, stored.join(rows, on=_EVENT, how="anti"))
    return Outcome(gone=gone) + _examine(case, bounds, page[suspects["row"]])


def _compare_users(case: Case, bounds: Bounds, page: pl.DataFrame, rows: pl.DataFrame) -> Outcome:
    users = _users(case, page)[rows["row"]]
    known = case.shelf.players_of(users).with_columns_seq(known=pl.lit(value=True))
    judged = users.with_row_index("at").join(known, on=_USER, how="left", suffix="_here", maintain_order="left")
    older = (pl.col("mark_here") < pl.col("mark")).fill_null(value=True) & pl.col("mark").is_not_null()
    suspects = page[rows["row"]][judged.filter(pl.col("known").is_null() | older)["at"]]
    here = case.shelf.players(bounds.bucket) if case.by_update else known.clear()
    return Outcome(gone=_gone_users(case, here.join(users, on=_USER, how="anti"))) + _examine(case, bounds, suspects)


def _users(case: Case, page: pl.DataFrame) -> pl.DataFrame:
    columns = case.stream.binding.columns
    updated = instants(page[columns["dt_update"]]).dt.epoch("us") * 1000
    return page.select_seq(
        brand_id=pl.col(columns["ext_brand_id"]), external_id=pl.col(columns["user_ext_id"]), mark=updated
    )


def _gone_events(case: Case, absent: pl.DataFrame) -> int:
    """Count the events whose rows the source has nowhere any more, and follow those that have moved."""
    if absent.is_empty():
        return 0
    binding = case.stream.binding
    parts = [key_parts(key, len(binding.key)) for key in absent["key"].unique(maintain_order=True)]
    wanted = pl.DataFrame([part for part in parts if part], schema=dict.fromkeys(binding.key, pl.String), orient="row")
    found = values.identified(_rows(case, values.identifying(binding), wanted), binding)
    found = found.join(absent, on=_EVENT, how="semi")
    case.shelf.remark(found.unique(_EVENT, keep="last", maintain_order=True), case.desk.lease)
    return absent.join(found, on=_EVENT, how="anti").select_seq(_EVENT).n_unique()


def _gone_users(case: Case, absent: pl.DataFrame) -> int:
    if absent.is_empty():
        return 0
    columns = case.stream.binding.columns
    names = {columns["ext_brand_id"]: "brand_id", columns["user_ext_id"]: "external_id"}
    wanted = absent.select_seq(pl.col(own).alias(name) for name, own in names.items())
    found = _rows(case, tuple(names), wanted, placed=False)
    return absent.join(found.rename(names), on=_USER, how="anti").height


def _examine(case: Case, bounds: Bounds, suspects: pl.DataFrame) -> Outcome:
    """Judge suspects by their whole rows, and commit those that are missing if they are to be repaired."""
    if suspects.is_empty():
        return Outcome()
    binding, point = case.stream.binding, case.stream.checkpoint
    whole = _whole(case, bounds, suspects)
    normalised = binding.contract.normalise(whole, binding, Context(point.history_until, rules=case.desk.rules))
    events, profiles = normalised.events, normalised.profiles
    stored = case.shelf.events_of(events["key"].unique().to_list()).rename({"amount": "here", "mark": "at"})
    both = events.join(stored, on=[*_EVENT, "name"], how="inner")
    changed = both.filter(plain(pl.col("amount")).ne_missing(pl.col("here"))).unique([*_EVENT, "name"])
    lost = Normalised(
        events=_not_quarantined(case, events.join(stored, on=[*_EVENT, "name"], how="anti")),
        shape=normalised.shape,
        profiles=_newer(case, profiles),
        rejections=normalised.rejections.filter(~pl.col("kept")),
    )
    lost = replace(lost, rejections=_unknown_rejections(case, lost.rejections))
    refused = lost.rejections["row_key"].n_unique() if lost.rejections.height else 0
    missing = lost.events.select_seq(*_EVENT, "name").n_unique() + lost.profiles.height + refused
    repaired = 0
    if case.repair and (missing or changed.height):
        told = normalised.rejections.filter(pl.col("kept") & pl.col("row_key").is_in(_short(lost.events["key"])))
        again = pl.concat([lost.events, changed.select_seq(lost.events.columns)])
        repaired = _commit(case, replace(lost, events=again, rejections=pl.concat([lost.rejections, told])))
        repaired += refused
    settled = both if case.repair else both.join(lost.events, on=_EVENT, how="anti")
    case.shelf.remark(settled.filter(pl.col("at").ne_missing(pl.col("mark"))).unique(_EVENT), case.desk.lease)
    return Outcome(missing=missing, repaired=repaired, changed=changed.height)


def _commit(case: Case, found: Normalised) -> int:
    """Write what was missing through the same transaction as any page; a profile that is newer by now stays."""
    batch = Batch(
        case.stream.checkpoint,
        found,
        production=False,
        after=case.shelf.unanswered,
    )
    committed = commit(case.desk.connection, batch, rates=case.desk.rates, lease=case.desk.lease, keys=case.desk.keys)
    return found.profiles.height or committed.events


def _newer(case: Case, profiles: pl.DataFrame) -> pl.DataFrame:
    """Return the profiles that the store does not have, or has older."""
    known = case.shelf.players_of(profiles) if profiles.height else None
    if known is None:
        return profiles
    here = profiles.join(known, on=_USER, how="inner")
    updated = (pl.col("source_updated_at").dt.epoch("us") * 1000 <= pl.col("mark")).fill_null(value=False)
    unmarked = pl.col("source_updated_at").is_null()
    return profiles.join(here.filter(updated | unmarked), on=_USER, how="anti")


def _not_quarantined(case: Case, events: pl.DataFrame) -> pl.DataFrame:
    """Leave out events whose row waits in the quarantine: a person decides. Keys that are cut there don't count."""
    known = case.shelf.quarantined(_short(events["key"])) if events.height else set()
    return events.filter(~pl.col("key").is_in(sorted(known)))


def _unknown_rejections(case: Case, rejections: pl.DataFrame) -> pl.DataFrame:
    keys = rejections["row_key"].fill_null("")
    return rejections.filter(~keys.is_in(sorted(case.shelf.quarantined(keys.unique().to_list()))))


def _short(keys: pl.Series) -> list[str]:
    return keys.str.slice(0, values.KEY_BYTES // 4).unique().to_list()


def _whole(case: Case, bounds: Bounds, suspects: pl.DataFrame) -> pl.DataFrame:
    """Return the suspects' whole rows. A text that does not find its own row (broken bytes) is found by its cursor."""
    view = case.stream.view
    names = list(dict.fromkeys((view.cursor, *view.key)))
    wanted = suspects.select_seq(names).unique(maintain_order=True)
    if wanted.height > _SINGLY:
        return _read(case, bounds, view.columns).join(wanted, on=names, how="semi")
    whole = _rows(case, view.columns, wanted).join(wanted, on=names, how="semi")
    parts = [whole.unique(names, maintain_order=True)]
    left = wanted.join(whole, on=names, how="anti")
    parts += [
        _read(case, Bounds(bounds.bucket, cursor, cursor), view.columns).join(left, on=names, how="semi")
        for cursor in left[view.cursor].unique(maintain_order=True)
    ]
    return pl.concat(parts)


def _rows(case: Case, columns: tuple[str, ...], wanted: pl.DataFrame, *, placed: bool = True) -> pl.DataFrame:
    """Return some columns of the rows with the wanted texts, as long as that does not take too long."""
    parts = []
    for part in wanted.iter_slices(_AT_ONCE):
        if case.limit is not None and clock.monotonic() > case.limit:
            raise Transient(f"source {case.desk.source.name}: rows of {case.stream.view.name} take too long to look up")
        parts.append(case.desk.reader.read_named(_narrow(case, columns), part, placed=placed))
    return pl.concat(parts)


def _read(case: Case, bounds: Bounds, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read some columns of all rows between the bounds, in order."""
    view, at, pages = _narrow(case, columns), None, []
    while True:
        page = case.desk.reader.read(view, Window(at, bounds.until, bounds.since), limit=2 * LEAF_ROWS)
        pages.append(page.frame)
        if page.last is None or page.last == at:
            return pl.concat(pages)
        at = page.last


def _narrow(case: Case, columns: tuple[str, ...]) -> View:
    view = case.stream.view
    return replace(view, columns=tuple(dict.fromkeys((view.cursor, *view.key, *columns))))


def _promised(case: Case, page: pl.DataFrame) -> pl.DataFrame:
    """Leave out rows behind the seal, which share its cursor: the daemon has yet to look at them."""
    sealed, view = case.stream.checkpoint.sealed, case.stream.view
    if sealed is None or page.is_empty():
        return page
    tied = page[view.cursor] == sealed.cursor
    if not tied.any():
        return page
    last = page.select_seq(
        pl.all_horizontal(pl.col(name) == text for name, text in zip(view.key, sealed.key, strict=True))
    ).to_series()
    end = (last & tied).arg_max() if (last & tied).any() else None
    return page.filter(~tied) if end is None else page[: end + 1]
