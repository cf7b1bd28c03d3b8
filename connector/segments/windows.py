"""What "N days" means: today and the N-1 days before it, by calendar day of the reporting time zone.

And when a whole refresh is due: a schedule is cron's, in that zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Calendar:
    """A day of a time zone, as of which segments are judged."""

    today: date
    zone: str

    def first(self, days: int) -> date:
        """Return the first day of a window of so many days."""
        return self.today - timedelta(days=days - 1)

    def begins(self, days: int) -> datetime:
        """Return the instant at which such a window begins."""
        return datetime.combine(self.first(days), time(), ZoneInfo(self.zone)).astimezone(UTC)


def today(zone: str, at: datetime) -> date:
    """Return the date that an instant has in a zone."""
    return at.astimezone(ZoneInfo(zone)).date()


def following(schedule: str, at: datetime, zone: str) -> datetime:
    """Return the next time of a schedule after an instant; raises ValueError for what is none."""
    from croniter import croniter  # only segments with a schedule need it
    from croniter.croniter import CroniterError

    if len(schedule.split()) != 5:
        raise ValueError('write five fields of cron, as "0 4 * * *": minute, hour, day, month, day of the week')
    try:
        found: datetime = croniter(schedule, at.astimezone(ZoneInfo(zone))).get_next(datetime)
    except (CroniterError, ValueError, KeyError, AttributeError):
        raise ValueError(f'{schedule[:60]!a} is no schedule of cron that ever comes, as "0 4 * * *"') from None
    return found.astimezone(UTC)
