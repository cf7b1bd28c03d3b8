"""The file of rates: what it may look like, and every mistake at once with its line."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from connector import rates_file
from connector.errors import Misconfigured
from connector.normalised import RATES

if TYPE_CHECKING:
    from pathlib import Path


def mistakes(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"fx\.file") as caught:
        rates_file.read(path)
    return str(caught.value).splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rates.csv"


def test_rates_are_read_as_they_are_written(path: Path) -> None:
    """Columns in any order, codes in any case, times as in views; blank lines, quotes and a byte order mark do no harm."""
    path.write_text(
        '\ufeffRate,Currency,valid_from\r\n1.17,gbp,2026-01-31\r\n\r\n"2500.000000000000000001",ETH,2026-01-31T12:00:00Z\r\n',
        encoding="utf-8",
    )
    found = rates_file.read(path)
    assert dict(found.schema) == dict(RATES)
    assert found.rows() == [
        (None, "GBP", datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.17")),
        (None, "ETH", datetime(2026, 1, 31, 12, tzinfo=UTC), Decimal("2500.000000000000000001")),
    ]
    path.write_text("base,currency,valid_from,rate,note\nEUR,GBP,2026-01-31,1.17,x\n,CHF,2026-01-31,1.05,\n")
    assert rates_file.read(path)["base"].to_list() == ["EUR", None]


def test_every_mistake_is_said_at_once_with_its_line(path: Path) -> None:
    """In the order of the file, two of one line too."""
    text = (
        "currency,valid_from,rate\nGBP,2026-01-01,1.17\n,2026-01-01,1\nGBP,soon,0\nGBP,2026-01-01\nGBP,2026-01-01,1.2\n"
    )
    told = mistakes(path, text)
    assert told[0].endswith("rates.csv has 5 mistake(s):")
    assert [line.strip().partition(" is ")[0] for line in told[1:6]] == [
        "line 3: no currency",
        "line 4: rate",
        "line 4: valid_from",
        "line 5: rate",
        "line 6: another rate than line 2 gives for the same currency and time",
    ]


def test_a_long_list_of_mistakes_is_cut(path: Path) -> None:
    """The first ones are enough to see what is wrong with a file of the wrong kind."""
    told = mistakes(path, "currency,valid_from,rate\n" + "GBP,never,1\n" * 100)
    assert told[0].endswith("100 mistake(s):")
    assert told[-1].strip() == "and 80 more"
    assert len(told) == 22


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "no column currency and no valid_from and no rate"),
        (b"currency;valid_from;rate\n", "no column currency"),
        (b"currency,rate\nGBP,1\n", "no column valid_from"),
        (b"currency,valid_from,rate\n\xff\xfe,2026-01-01,1\n", "it is no CSV in UTF-8"),
    ],
)
def test_what_is_no_file_of_rates_is_said_plainly(path: Path, content: bytes, part: str) -> None:
    """With what the file must begin with."""
    path.write_bytes(content)
    with pytest.raises(Misconfigured) as caught:
        rates_file.read(path)
    assert part in str(caught.value)
    assert "currency,valid_from,rate" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The reason is the system's own."""
    with pytest.raises(Misconfigured, match=r"nowhere\.csv: No such file"):
        rates_file.read(tmp_path / "nowhere.csv")
