"""Values of the configuration that have their own writing: durations, hours, customer ids."""

from __future__ import annotations

from typing import Any

import pytest

from connector.config import Source, parse
from connector.errors import Misconfigured


def document(source: dict[str, Any]) -> dict[str, Any]:
    base = {"name": "kaasino", "url": "postgresql://reader@replica.example.com/casino", "streams": {"deposits": {}}}
    return {"sources": [base | source]}


def parsed(**source: Any) -> Source:
    return parse(document(source), environment={}).sources[0]


def mistake(**source: Any) -> str:
    """Return the one mistake of a document."""
    with pytest.raises(Misconfigured) as caught:
        parse(document(source), environment={})
    (line,) = str(caught.value).splitlines()[1:]
    return line.strip()


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("2s", 2), ("1.5m", 90), ("2 h", 7200), ("7d", 604_800), (" 3s ", 3)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    """ms, s, m, h and d."""
    assert parsed(lateness="1s", tolerance=text).tolerance == pytest.approx(seconds)


@pytest.mark.parametrize("value", [5, 0.5, "5", "5 weeks", "-1s", "", None, True, "1h30m"])
def test_a_duration_without_a_unit_is_a_mistake(value: object) -> None:
    """Nobody guesses whether 5 is seconds or minutes."""
    line = mistake(tolerance=value)
    assert line.startswith("sources[0].tolerance: ")


def test_one_duration_is_both_waits() -> None:
    """wait: 1s waits as long with work as without."""
    wait = parsed(wait="250ms").wait
    assert (wait.busy, wait.idle) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("text", "minutes"), [("02:00-05:30", (120, 330)), ("00:00-24:00", (0, 1440)), ("22:00-04:00", (1320, 240))]
)
def test_hours_are_minutes_of_the_day(text: str, minutes: tuple[int, int]) -> None:
    """A range may span midnight."""
    assert parsed(streams={"deposits": {"hours": text}}).streams["deposits"].hours == minutes


@pytest.mark.parametrize(
    "value",
    [
        *("2:00-5:00", "02:00", "25:00-26:00", "02:60-03:00", "00:00-24:01", 120, "nights"),
        pytest.param("24:30-05:00"),
    ],
)
def test_hours_are_written_one_way(value: object) -> None:
    """Anything but HH:MM-HH:MM within a day is a mistake."""
    line = mistake(streams={"deposits": {"hours": value}})
    assert "02:00-05:30" in line


@pytest.mark.parametrize("template", ["kaasino:{user_ext_id}", "{ext_brand_id}-{user_ext_id}", "{user_ext_id}"])
def test_a_customer_id_is_a_template(template: str) -> None:
    """Brand and user may stand in braces."""
    assert parsed(brands={"b": {"customer_id": template}}).brands["b"].customer_id == template


@pytest.mark.parametrize(
    "template",
    [
        *("{ext_brand_id}", "constant", "{user_id}:{user_ext_id}", "{}", "{0}:{user_ext_id}", "{user_ext_id"),
        *(
            pytest.param(
                text,
            )
            for text, reason in (
                ("{{user_ext_id}}", "escaped braces write the same text for every player"),
                ("{user_ext_id.name}", "AttributeError is not caught: a traceback instead of a mistake"),
                ("{user_ext_id[name]}", "TypeError is not caught: a traceback instead of a mistake"),
            )
        ),
    ],
)
def test_a_template_that_makes_two_players_one_is_a_mistake(template: str) -> None:
    """Other names, and no user at all, are refused."""
    line = mistake(brands={"b": {"customer_id": template}})
    assert line.startswith("sources[0].brands.b.customer_id: ")
