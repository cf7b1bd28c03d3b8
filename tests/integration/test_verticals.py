"""What players did in casino and sportsbook, each by itself, as their rows tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from tests.integration.revisions import at_revision

if TYPE_CHECKING:
    from connector.store.database import Database

SUMS: Final = "(values (0), (7), (-9))"
EXTREMES: Final = "(values (0), (1), (-3), (9223372036854775807), (null))"
TIMES: Final = "(values (null), ('2026-03-01 12:00:00.000001+02'::timestamptz), ('infinity'), ('0044-03-15 BC'))"
EVERY: Final = f"""
    select told::text,
           crm.vertical_activity(wagered, won, bets, last, sport_wagered, sport_won, sport_bets, last)::text
    from (
        select * from {SUMS} t1 (wagered), {EXTREMES} t2 (won), {SUMS} t3 (bets), {TIMES} t4 (last),
                      {SUMS} t5 (sport_wagered), {SUMS} t6 (sport_won), {SUMS} t7 (sport_bets)
        where won - 10 < 0 or won is null or wagered >= sport_wagered and sport_won >= 0 and sport_wagered >= 0
    ) told
"""


def test_a_row_is_told_as_it_was_when_it_was_written(store: Database) -> None:
    """Migration 0013 works it out in another way and writes no row: both ways say the same of any row."""
    answers = []
    for revision in ("0013", "0012"):
        at_revision(store.url, revision)
        with psycopg.connect(store.url) as connection:
            answers.append(set(connection.execute(EVERY.encode())))
    assert answers[0] == answers[1]
    assert len(answers[0]) > 3000
