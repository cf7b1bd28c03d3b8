"""Definitions of segments: every mistake at once, at its path; what is right comes back as it was said."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

from connector.segments import definition, draft, windows
from connector.segments.compiler import Contacts, compile_all
from connector.segments.definition import InvalidSegment
from connector.segments.templates import templates

TODAY: Final = windows.Calendar(date(2026, 3, 30), "Europe/Madrid")
SEED: Final[dict[str, Any]] = {
    "operator": "AND",
    "conditions": [
        {"type": "trait", "field": "total_deposited", "op": ">", "value": 100000},
        {"type": "trait", "field": "kyc_status", "op": "=", "value": "verified"},
        {
            "type": "event",
            "event": "bet_settled",
            "window": {"kind": "rolling", "days": 7},
            "aggregation": "count",
            "op": ">=",
            "value": 5,
        },
        {
            "operator": "OR",
            "conditions": [
                {"type": "trait", "field": "current_tier_code", "op": "=", "value": "gold"},
                {"type": "trait", "field": "current_tier_code", "op": "=", "value": "platinum"},
            ],
        },
    ],
}


def trait(field: object, op: object, *value: object) -> dict[str, Any]:
    """Return a condition on a field."""
    return {"type": "trait", "field": field, "op": op, **({"value": value[0]} if value else {})}


def event(**changes: object) -> dict[str, Any]:
    """Return a condition on bets, with changes."""
    window = {"kind": "rolling", "days": 7}
    right = {"type": "event", "event": "bet_settled", "window": window, "aggregation": "count", "op": ">=", "value": 5}
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


def mistakes(*conditions: object, **root: object) -> dict[str, str]:
    """Return what is said of a definition, nothing if it is right."""
    try:
        definition.parse({"operator": "AND", "conditions": list(conditions), **root})
    except InvalidSegment as error:
        return error.mistakes
    return {}


def test_the_shape_of_the_guide_is_read_and_comes_back() -> None:
    tree = definition.parse(SEED)
    assert definition.written(tree) == SEED
    assert definition.size(tree) == 5


@pytest.mark.parametrize("name", list(templates()))
@pytest.mark.parametrize("places", [0, 2, 8])
def test_every_template_is_right(name: str, places: int) -> None:
    template = templates(places)[name]
    made = draft.parse({"name": template.name, "definition": template.definition})
    assert definition.written(made.definition) == template.definition


def test_thresholds_of_templates_are_in_the_base_currencys_subunit() -> None:
    """The last deposit over 250 is 250, 25,000 or 25,000,000,000 of them."""
    found = [templates(places)["pre-vip"].definition["conditions"][1]["value"] for places in (0, 2, 8)]
    assert found == [250, 25_000, 25_000_000_000]


def test_every_mistake_is_told_at_once_with_its_path_and_the_nearest_name() -> None:
    found = mistakes(
        trait("total_deposit", ">", 1),
        {
            "operator": "XOR",
            "conditions": [trait("bet_count", "contains", "1"), {**event(event="bet_setled"), "days": 3}],
        },
        event(aggregation="average", window={"kind": "rolling", "days": 0}, value="5"),
        [],
        {"type": "traits"},
        {"operator": "OR", "conditions": []},
        operators="AND",
    )
    assert set(found) == {
        "operators",
        "conditions[0].field",
        "conditions[1].operator",
        "conditions[1].conditions[0].op",
        "conditions[1].conditions[1].days",
        "conditions[1].conditions[1].event",
        "conditions[2].aggregation",
        "conditions[2].window",
        "conditions[2].value",
        "conditions[3]",
        "conditions[4].type",
        "conditions[5].conditions",
    }
    assert "did you mean 'total_deposited'?" in found["conditions[0].field"]
    assert "did you mean 'bet_settled'?" in found["conditions[1].conditions[1].event"]
    assert "did you mean 'operator'?" in found["operators"]
    assert "did you mean 'trait'?" in found["conditions[4].type"]
    assert found["conditions[2].window"] == "days must be a whole number from 1 (today) to 365"


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        (trait("bet_count", ">", True), "value"),
        (trait("bet_count", ">", "5"), "value"),
        (trait("bet_count", ">", float("nan")), "value"),
        (trait("bet_count", ">", float("inf")), "value"),
        (trait("bet_count", ">", 10**24), "value"),
        (trait("bet_count", ">"), "value"),
        (trait("bet_count", "in", 5), "value"),
        (trait("bet_count", "in", []), "value"),
        (trait("bet_count", "in", [1, "2"]), "value"),
        (trait("bet_count", "in", list(range(1001))), "value"),
        (trait("status", "=", 5), "value"),
        (trait("status", "=", ""), "value"),
        (trait("status", "=", "a\0b"), "value"),
        (trait("status", "=", "\ud800"), "value"),
        (trait("status", "=", "x" * 501), "value"),
        (trait("status", ">", "active"), "op"),
        (trait("status", "exists", "x"), "value"),
        (trait("status", ["="], "x"), "op"),
        (trait("marketable", "=", 1), "value"),
        (trait("marketable", "in", [True]), "op"),
        (trait("tags", "=", "vip"), "op"),
        (trait("tags", "contains", ["vip"]), "value"),
        (trait("last_bet_at", ">", "yesterday"), "value"),
        (trait("last_bet_at", ">", 1700000000), "value"),
        (trait("last_bet_at", ">", {"kind": "rolling", "days": 366}), "value"),
        (trait("last_bet_at", ">", "0001-01-01T00:00:00+14:00"), "value"),
        (trait(["status"], "=", "x"), "field"),
        (trait(None, "=", "x"), "field"),
        (trait("segment_ids", "exists"), "field"),
        (event(window={"kind": "rolling", "days": True}), "window"),
        (event(window={"kind": "rolling", "days": 1.0}), "window"),
        (event(window={"kind": "fixed", "days": 1}), "window"),
        (event(window=7), "window"),
        (event(event="custom_segment_entered"), "event"),
        (event(aggregation=["count"]), "aggregation"),
        (event(op="exists"), "op"),
        (event(op="contains"), "op"),
        (event(op="in", value=5), "value"),
        (event(value=None), "value"),
    ],
)
def test_what_does_not_fit_is_told_at_its_place(condition: dict[str, Any], where: str) -> None:
    assert list(mistakes(condition)) == [f"conditions[0].{where}"]


@pytest.mark.parametrize("raw", [None, 5, "x", [], {}, SEED["conditions"][0], {"operator": "AND", "conditions": {}}])
def test_what_is_no_group_is_told(raw: object) -> None:
    with pytest.raises(InvalidSegment, match=r"mistake\(s\)"):
        definition.parse(raw)


def _nested(levels: int) -> dict[str, Any]:
    node: dict[str, Any] = trait("status", "=", "active")
    for _ in range(levels):
        node = {"operator": "OR", "conditions": [node]}
    return node


def test_depth_and_size_are_bounded() -> None:
    """Ten groups deep and two hundred conditions are right, one more is not."""
    definition.parse(_nested(10))
    with pytest.raises(InvalidSegment, match="deeper than 10"):
        definition.parse(_nested(11))
    with pytest.raises(InvalidSegment, match="deeper than 10"):
        definition.parse(_nested(400))
    one = trait("status", "=", "active")
    assert mistakes(*[one] * 200) == {}
    assert list(mistakes(*[one] * 201)) == ["conditions"]


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "operator", "conditions", "field", "op", "value", "event", "window", "x"]),
                inner | st.sampled_from(["AND", "trait", "event", "status", "=", "in", "bet_settled", "count"]),
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused_with_paths(raw: object) -> None:
    """Never another error; what is read comes back as JSON that is read to the same."""
    try:
        tree = definition.parse(raw)
    except InvalidSegment as error:
        told = error
        assert told.mistakes
        str(told).encode()
    else:
        assert definition.parse(json.loads(json.dumps(definition.written(tree)))) == tree


def test_values_are_read_as_what_they_are() -> None:
    """A time without a zone is UTC, a number with nothing behind the point is whole, a list has each once."""
    tree = definition.parse(
        {
            "operator": "OR",
            "conditions": [
                trait("created_at", ">", "2026-01-31"),
                trait("created_at", ">", "2026-01-31T12:00:00+02:00"),
                trait("churn_score", "in", [0.5, 2.0, 2]),
            ],
        }
    )
    said = [condition["value"] for condition in definition.written(tree)["conditions"]]
    assert said == ["2026-01-31T00:00:00+00:00", "2026-01-31T10:00:00+00:00", [0.5, 2]]


def test_a_window_is_today_and_the_days_before_it() -> None:
    """By the zone's own midnights: clocks went forward in Madrid on 29 March."""
    assert TODAY.first(1) == date(2026, 3, 30)
    assert TODAY.begins(1) == datetime(2026, 3, 29, 22, tzinfo=UTC)
    assert TODAY.begins(2) == datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert windows.today("Europe/Madrid", datetime(2026, 3, 29, 22, tzinfo=UTC)) == date(2026, 3, 30)
    assert windows.today("Europe/Madrid", datetime(2026, 3, 29, 21, 59, tzinfo=UTC)) == date(2026, 3, 29)


def test_parts_of_encrypted_contacts_cannot_be_asked_for() -> None:
    """Whole ones can, by what the caller makes of them."""
    sealed = Contacts(lambda kind, text: f"digest of {kind} {text}", plain=False)
    tree = definition.parse(
        {
            "operator": "OR",
            "conditions": [
                trait("email", "=", "ana@example.com"),
                {"operator": "AND", "conditions": [trait("phone", "starts_with", "+34"), trait("email", "exists")]},
            ],
        }
    )
    with pytest.raises(InvalidSegment) as refused:
        compile_all({1: tree}, TODAY, sealed)
    assert list(refused.value.mistakes) == ["conditions[1].conditions[0].op"]
    whole = definition.parse({"operator": "AND", "conditions": [trait("email", "=", "ana@example.com")]})
    compiled = compile_all({1: whole}, TODAY, sealed)
    assert compiled.personal
    assert ["digest of email ana@example.com"] in compiled.values.values()


def test_nothing_of_a_definition_but_its_values_is_bound_and_nothing_is_in_the_text() -> None:
    """Segments that ask the same share what is added up."""
    one = definition.parse({"operator": "AND", "conditions": [event(), event(value=7)]})
    compiled = compile_all({1: one, 2: one}, TODAY)
    assert compiled.events().count("sum(") == 1
    assert compiled.predicates[1] == compiled.predicates[2]


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"name": ""}, "name"),
        ({"name": " \t"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 7}, "name"),
        ({"description": None}, "description"),
        ({"refresh_strategy": "hourly"}, "refresh_strategy"),
        ({"refresh_strategy": ["realtime"]}, "refresh_strategy"),
        ({"schedule": "daily"}, "schedule"),
        ({"schedule": "@daily"}, "schedule"),
        ({"schedule": "* * * * * *"}, "schedule"),
        ({"schedule": "61 4 * * *"}, "schedule"),
        ({"schedule": "0 0 30 2 *"}, "schedule"),
        ({"schedule": 4}, "schedule"),
        ({"segment_id": 4}, "segment_id"),
        ({"definition": {"operator": "AND"}}, "conditions"),
    ],
)
def test_what_is_said_beside_the_definition_is_checked_too(said: dict[str, object], where: str) -> None:
    with pytest.raises(InvalidSegment) as refused:
        draft.parse({"name": "Rich", "definition": SEED, **said})
    assert list(refused.value.mistakes) == [where]


def test_a_change_leaves_what_it_does_not_name() -> None:
    before = draft.parse({"name": "Rich", "definition": SEED})
    assert (before.refresh_strategy, before.schedule) == ("realtime", "0 4 * * *")
    said = {"name": "Rich", "definition": SEED, "schedule": "0 5 * * *"}
    after = draft.parse({"refresh_strategy": "on_demand"}, before=said)
    assert after.schedule == "0 5 * * *"
    assert (after.name, after.definition, after.refresh_strategy) == ("Rich", before.definition, "on_demand")
    with pytest.raises(InvalidSegment, match="name: is missing"):
        draft.parse({"refresh_strategy": "on_demand"})


def test_a_schedule_is_in_the_reporting_time_zone() -> None:
    """Four in the morning in Madrid, on either side of the change of clocks."""
    found = [
        windows.following("0 4 * * *", datetime(2026, 3, day, 12, tzinfo=UTC), "Europe/Madrid") for day in (27, 28, 29)
    ]
    assert [at.hour for at in found] == [3, 2, 2]
