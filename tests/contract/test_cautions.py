"""What `check` says of a server's own settings that endanger reading it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from connector.sources import mysql
from connector.sources.dialect import Settings
from connector.sources.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_standby_that_cancels_reads_soon_is_named(operator: Any) -> None:
    """The fixture's standby gives up its readers after 300 ms; nothing else here endangers a read."""
    with closing(Reader(operator.url, source="casino")) as reader:
        cautions = reader.cautions()
    if operator.name == "standby":
        ((text, remedy),) = cautions
        assert "0.3 s" in text
        assert "hot_standby_feedback" in remedy
    else:
        assert list(cautions) == []


@pytest.mark.parametrize(
    ("variables", "endangered"),
    [
        ({"replica_parallel_workers": "4", "replica_preserve_commit_order": "OFF"}, True),
        ({"replica_parallel_workers": "4", "replica_preserve_commit_order": "ON"}, False),
        ({"replica_parallel_workers": "0", "replica_preserve_commit_order": "OFF"}, False),
        ({"slave_parallel_workers": "8", "slave_preserve_commit_order": "OFF"}, True),
        ({}, False),
    ],
)
def test_a_parallel_replica_that_does_not_keep_the_order_of_commits_is_named(
    variables: dict[str, str], endangered: bool, operator_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are MySQL's variables, which MariaDB has not: a real server is asked for rows that spell them."""
    rows = " union all ".join(f"select '{name}', '{value}'" for name, value in variables.items())
    query = rows or "select 'a', 'b' from dual where false"
    monkeypatch.setattr(mysql, "_REPLICATION", mysql.sa.text(query))
    with closing(Reader(operator_of("mysql").url, source="casino", settings=Settings())) as reader:
        assert bool(reader.cautions()) == endangered
