"""What a backfill has loaded, compared with its source: number, sums of amounts and key digests, a bucket at a time.

The comparison is the audit's, over the job's own range as far as it is final. What it finds is told, not repaired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from connector import audit, backfill, opening
from connector.buckets import Bucket, merged, within
from connector.position import mark_of
from connector.store import backfills, quarantine

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.poller import Desk, Stream
    from connector.store.audits import Outcome


@dataclass(frozen=True)
class Verified:
    """What the comparison says of a job, in words; `agrees`: every row is there, with the amount that it has."""

    agrees: bool
    said: str
    remedy: str = ""


def verify(desk: Desk, name: str, job: str, *, report: Callable[[int], None]) -> Verified:
    """Compare what a finished job has loaded, and record it where both sides agree; `report` gets the rows so far.

    Raises Transient when source or store stay away, Halted when the source is no longer what it was.
    """
    if (reason := audit.skipped(name)) is not None:
        return Verified(agrees=True, said=reason)
    stream = backfill.open_stream(desk, name)
    which = backfill.job_of(desk, stream, job)
    if stream.checkpoint.sealed is None:  # the daemon has yet to look at it: what was final at the first start is
        final = opening.final_at_start(desk, stream)
        stream = replace(stream, sealed=final, checkpoint=replace(stream.checkpoint, sealed=final))
    ranges = _buckets(desk, stream, which)
    if not ranges:
        return Verified(agrees=True, said="none of its rows is final yet: they are audited when they are")
    comparing = audit.Audit(desk, stream, "command", ranges, repair=False)
    while comparing.step():
        report(comparing.outcome.rows)
    outcome = comparing.outcome
    agrees = not outcome.missing and outcome.changed <= quarantine.changed(desk.connection, stream.checkpoint)
    if agrees:
        backfills.note_verified(desk.connection, which)
        return Verified(agrees=True, said=_agreement(stream, outcome))
    bounds = [audit.text_of(stream, mark) for mark in (ranges[0].low, ranges[-1].high - 1)]
    return Verified(agrees=False, said=_difference(outcome), remedy=_remedy(desk, name, outcome, *bounds))


def _buckets(desk: Desk, stream: Stream, job: backfills.Job) -> list[Bucket]:
    """Return the job's range in whole ticks of the cursor, as far as it is sealed."""
    sealed, kind, tick = stream.checkpoint.sealed, stream.binding.kind, audit.tick_of_cursor(stream)
    if sealed is None:
        return []
    marks = [(mark_of(since, kind), mark_of(until, kind)) for since, until in backfills.bounds(desk.connection, job)]
    whole = merged(Bucket(low // tick * tick, (last // tick + 1) * tick) for low, last in marks)
    return within(whole, None, (sealed.mark // tick + 1) * tick)


def _agreement(stream: Stream, outcome: Outcome) -> str:
    what = "the number of rows and every user's stamp" if stream.binding.contract.reads_profiles else "number of rows"
    if not stream.binding.contract.reads_profiles:
        what = f"{what}, sum of amounts and digest of keys" if stream.binding.amounts else f"{what} and digest of keys"
    gone = f"; {outcome.gone:,} gone at the source since" if outcome.gone else ""
    return f"verified, {outcome.rows:,} rows: {what} agree with the source{gone}"


def _difference(outcome: Outcome) -> str:
    counts = {"missing from the store": outcome.missing, "with another amount at the source": outcome.changed}
    return (
        f"DIFFERS from the source: {', '.join(f'{count:,} row(s) {what}' for what, count in counts.items() if count)}"
    )


def _remedy(desk: Desk, name: str, outcome: Outcome, low: str | None, high: str | None) -> str:
    source, bounds = (
        f" --source {desk.source.name}",
        "".join(f' {option} "{text}"' for option, text in (("--from", low), ("--to", high)) if text is not None),
    )
    kept = "; of a changed row the first version counts, both go to the quarantine" if outcome.changed else ""
    return f"connector audit --stream {name}{source}{bounds} --repair{kept}"
