"""Leads that are claimed, accounts that share a contact, and what a person says of them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector.errors import Misconfigured
from connector.store import identities

if TYPE_CHECKING:
    from collections.abc import Callable

Writer = Any
Look = Any
TENANT: Final = "kaasino"
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_RUNS: Final = itertools.count(1)
#: The ways in which two rows can bear one contact: profile columns of the one, and of the other.
SHARED: Final = {
    "email": ({"email": "Ana@Example.com"}, {"email": "ana@example.COM"}),
    "phone": ({"phone": "+34600000000"}, {"phone": "+34600000000"}),
    "telegram": ({"telegram_id": "4711"}, {"telegram_id": "4711"}),
    "wallet": (
        {"wallets": '[{"network": "eth", "address": "0xAb"}]'},
        {"wallets": '[{"network": "eth", "address": "0xAb"}, {"network": "tron", "address": "T1"}]'},
    ),
}


@pytest.fixture
def lead(look: Look) -> Callable[..., int]:
    """Give a maker of leads: players that nobody has given an id yet."""

    def make(brand: str = "kaasino", **values: Any) -> int:
        reached = {name: values.pop(name, None) for name in ("email", "phone")}
        names = ["tenant", "brand_id", *values]
        marks = ", ".join(["%s"] * len(names))
        (made,) = look(
            f"insert into crm.players ({', '.join(names)}) values ({marks}) returning player_id",
            *(TENANT, brand, *values.values()),
        )
        player_id: int = made["player_id"]
        if any(reached.values()):
            look(
                "insert into crm.player_contacts (player_id, tenant, email, phone, email_match, phone_match)"
                " values (%s, %s, %s, %s, lower(%s), %s) returning 1",
                *(player_id, TENANT, reached["email"], reached["phone"], reached["email"], reached["phone"]),
            )
        return player_id

    return make


def accounts(look: Look) -> dict[tuple[str, str | None], tuple[int, str]]:
    """Return every player: account -> its number and status."""
    rows = look("select * from crm.players order by player_id")
    return {(row["brand_id"], row["external_id"]): (row["player_id"], row["status"]) for row in rows}


def pairs(look: Look) -> set[tuple[str, str, str]]:
    """Return what conflicts: the later account, the earlier one, by what."""
    rows = look(
        "select p.external_id as later, o.external_id as earlier, matched_by from crm.player_conflicts c"
        " join crm.players p using (player_id) join crm.players o on o.player_id = c.other_id"
    )
    return {(row["later"], row["earlier"], row["matched_by"]) for row in rows}


# Leads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("brand", ["kaasino", ""])
def test_a_lead_is_claimed_by_the_first_account_that_shares_a_contact(
    writer: Writer, look: Look, lead: Callable[..., int], kind: str, brand: str
) -> None:
    """It keeps its number, and gets brand and id; for those who watch it is a player like a new one."""
    theirs, mine = SHARED[kind]
    player_id = lead(brand, **{name: value for name, value in theirs.items() if name != "wallets"})
    if kind == "wallet":
        look("insert into crm.player_wallets values (%s, 'eth', '0xAb', %s) returning 1", TENANT, player_id)
    writer.profiles({"external_id": "7", "history": False, "registered_at": NOON, **mine})
    assert accounts(look) == {("kaasino", "7"): (player_id, "active")}
    (player,) = look("select * from crm.players")
    assert (player["is_stub"], player["marketable"]) == (False, True)
    assert [row["name"] for row in look("select name from crm.events")] == ["signup"]
    assert pairs(look) == set()


def test_what_the_source_says_wins_and_what_it_does_not_say_stays(
    writer: Writer, look: Look, lead: Callable[..., int]
) -> None:
    """Not only at the moment of the claim: a null of the source never takes what the lead brought."""
    lead(
        email="ana@example.com",
        first_name="Ana",
        last_name="Bo",
        traits='{"ga_id": "1", "timezone": "UTC"}',
        tags='["x"]',
    )
    row = {"external_id": "7", "email": "ANA@example.com", "first_name": "Eva", "traits": '{"ga_id": "2"}'}
    for name in ("Eva", "Eve", None):
        writer.profiles({**row, "first_name": name})
        (player,) = look("select * from crm.players join crm.player_contacts using (player_id)")
        assert (player["first_name"], player["last_name"], player["email"]) == (name or "Ana", "Bo", "ANA@example.com")
        assert (player["traits"], player["tags"]) == ({"ga_id": "2", "timezone": "UTC"}, ["x"])


def test_the_most_telling_contact_chooses_the_lead(writer: Writer, look: Look, lead: Callable[..., int]) -> None:
    """E-mail before phone; one of the own brand before one of none, the oldest first."""
    by_phone = lead(phone="+34600000000")
    of_no_brand = lead("", email="ana@example.com")
    chosen = lead(email="ana@example.com")
    writer.profiles({"external_id": "7", "email": "ana@example.com", "phone": "+34600000000"})
    assert accounts(look)["kaasino", "7"][0] == chosen
    left = {row["player_id"] for row in look("select player_id from crm.players where external_id is null")}
    assert left == {by_phone, of_no_brand}


def test_a_lead_has_one_account(writer: Writer, look: Look, lead: Callable[..., int]) -> None:
    """Two accounts of a page that share its address: the one is it, and the other in conflict with that."""
    player_id = lead(email="ana@example.com")
    rows = [{"external_id": name, "email": "ana@example.com", "registered_at": NOON} for name in ("7", "8")]
    writer.profiles(*rows)
    found = accounts(look)
    assert found["kaasino", "7"] == (player_id, "active")
    assert found["kaasino", "8"][1] == "conflict"
    assert pairs(look) == {("8", "7", "email")}


@pytest.mark.parametrize(
    "values",
    [
        *({"brand": "other", "email": "ana@example.com"}, {"email": "ana@example.org"}),
        {"email": "ana@example.com", "external_id": "9"},
    ],
)
def test_who_is_no_lead_of_this_account_is_not_claimed(
    writer: Writer, look: Look, lead: Callable[..., int], values: dict[str, Any]
) -> None:
    """Another brand's, another address's, or an account of its own."""
    player_id = lead(**values)
    writer.profiles({"external_id": "7", "email": "ana@example.com"})
    assert accounts(look)["kaasino", "7"][0] != player_id


def test_a_stub_claims_nothing(writer: Writer, look: Look, lead: Callable[..., int]) -> None:
    """It has events of its own, and two rows are not made one: the lead stays a lead."""
    writer.events({"key": "d1", "external_id": "7"})
    player_id = lead(email="ana@example.com")
    writer.profiles({"external_id": "7", "email": "ana@example.com"})
    assert accounts(look)["kaasino", None][0] == player_id
    assert look("select total_deposited from crm.players where external_id = '7'") == [{"total_deposited": 1000}]


# Conflicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("brand", ["kaasino", "other"])
@pytest.mark.parametrize("together", [True, False])
def test_accounts_that_share_a_contact_are_told_and_never_merged(
    writer: Writer, look: Look, kind: str, brand: str, together: bool
) -> None:
    """In one page or in two, of one brand or of two: the one that registered later bears the status, and no more."""
    one, other = SHARED[kind]
    first = {"external_id": "7", "registered_at": NOON, **one}
    second = {"external_id": "8", "brand_id": brand, "registered_at": NOON + timedelta(days=1), **other}
    for page in [[second, first]] if together else [[second], [first]]:
        writer.profiles(*page)
    found = accounts(look)
    assert (found["kaasino", "7"][1], found[brand, "8"][1]) == ("active", "conflict")
    assert pairs(look) == {("8", "7", kind)}
    assert [(row["marketable"], row["eligible"]) for row in look("select * from crm.players")] == [(True, True)] * 2


def test_pages_that_come_again_raise_nothing_new(writer: Writer, look: Look) -> None:
    """The status stays, and nobody is told of it twice."""
    rows = [{"external_id": name, "email": "ana@example.com", "registered_at": NOON} for name in ("7", "8", "9")]
    writer.profiles(*rows)
    before = [look(f"select * from crm.{table} order by 1, 2") for table in ("players", "player_changes")]
    assert writer.profiles(*rows).players == 0
    assert [look(f"select * from crm.{table} order by 1, 2") for table in ("players", "player_changes")] == before
    assert pairs(look) == {("8", "7", "email"), ("9", "7", "email")}


def test_the_same_id_in_two_brands_is_no_other_account(writer: Writer, look: Look) -> None:
    """The operator numbers people, not accounts: nobody need be asked."""
    writer.profiles(
        {"external_id": "7", "email": "ana@example.com"},
        {"external_id": "7", "brand_id": "other", "email": "ana@example.com"},
    )
    assert pairs(look) == set()


def test_a_contact_that_becomes_anothers_is_told(writer: Writer, look: Look) -> None:
    """Also of players that were known apart; and who shares nothing any more has still to be answered for."""
    rows = [{"external_id": name, "email": f"{name}@example.com", "registered_at": NOON} for name in ("7", "8")]
    writer.profiles(*rows)
    assert pairs(look) == set()
    writer.profiles({**rows[0], "email": "8@EXAMPLE.com"})
    assert pairs(look) == {("8", "7", "email")}
    writer.profiles(*rows)
    assert {account: status for account, (_, status) in accounts(look).items()} == {
        ("kaasino", "7"): "active",
        ("kaasino", "8"): "conflict",
    }


@pytest.mark.parametrize("status", ["self_excluded", "banned"])
def test_a_conflict_hides_no_exclusion(writer: Writer, look: Look, status: str) -> None:
    """What must not be messaged shows as that, and as a conflict when it is over."""
    rows = [{"external_id": name, "email": "ana@example.com", "registered_at": NOON} for name in ("7", "8")]
    writer.profiles(rows[0], {**rows[1], "status": status, "eligible": False})
    assert accounts(look)["kaasino", "8"][1] == status
    writer.profiles(rows[1])
    assert accounts(look)["kaasino", "8"][1] == "conflict"
    writer.profiles({**rows[1], "status": status, "eligible": False})
    assert accounts(look)["kaasino", "8"][1] == status


def test_an_answer_gives_the_status_back_and_holds(writer: Writer, look: Look) -> None:
    """Only when the last question is answered; the pair is not raised again, whoever comes first."""
    contact = {"email": "ana@example.com", "phone": "+34600000000"}
    writer.profiles(
        {"external_id": "5", "email": contact["email"], "registered_at": NOON},
        {"external_id": "6", "phone": contact["phone"], "registered_at": NOON},
    )
    writer.profiles({"external_id": "7", "registered_at": NOON + timedelta(days=1), **contact})
    found = {external_id: number for (_, external_id), (number, _) in accounts(look).items()}
    assert pairs(look) == {("7", "5", "email"), ("7", "6", "phone")}
    assert not identities.answer(writer.connection, TENANT, found["5"], found["7"], "same")
    assert [row["other_external_id"] for row in identities.conflicts(writer.connection, TENANT)] == ["6"]
    assert accounts(look)["kaasino", "7"][1] == "conflict"
    before = look("select max(change_seq) as seq from crm.player_changes")[0]["seq"]
    assert identities.answer(writer.connection, TENANT, found["7"], found["6"], "distinct")
    assert accounts(look)["kaasino", "7"][1] == "active"
    assert look("select player_id from crm.player_changes where change_seq > %s", before) == [{"player_id": found["7"]}]
    for name in ("5", "7"):  # away and back, the later one too
        writer.profiles({"external_id": name, "registered_at": NOON})
        writer.profiles({"external_id": name, "registered_at": NOON, **contact})
    assert {status for _, status in accounts(look).values()} <= {"active", "conflict"}
    assert {(later, earlier) for later, earlier, _ in pairs(look)} == {("7", "5"), ("7", "6"), ("6", "5")}
    with pytest.raises(Misconfigured, match="no open conflict"):
        identities.answer(writer.connection, TENANT, found["7"], found["6"], "distinct")


def test_a_wallet_that_is_listed_no_more_is_gone(writer: Writer, look: Look) -> None:
    """An empty list takes all; a row that tells of none at all takes nothing."""
    both, one = SHARED["wallet"][1]["wallets"], SHARED["wallet"][0]["wallets"]
    for wallets, left in ((both, ["0xAb", "T1"]), (None, ["0xAb", "T1"]), (one, ["0xAb"]), ("[]", [])):
        writer.profiles({"external_id": "7", "wallets": wallets, "source_updated_at": NOON})
        assert [row["address"] for row in look("select address from crm.player_wallets order by 1")] == left


def test_anonymous_ids_are_collected(writer: Writer, look: Look) -> None:
    """Each once, in the order of their coming."""
    for anonymous in ("a1", "a2", "a1", None, "a3"):
        writer.profiles(
            {"external_id": "7", "traits": "{}" if anonymous is None else f'{{"anonymous_id": "{anonymous}"}}'}
        )
    assert look("select anonymous_ids from crm.players") == [{"anonymous_ids": ["a1", "a2", "a3"]}]


def test_an_account_that_comes_to_share_a_contact_is_told_of_every_brand_of_the_other(
    writer: Writer, look: Look
) -> None:
    """Accounts of one id share it without a question, until somebody else has it too: then each of them is asked."""
    alike = {"email": "a@example.com", "registered_at": NOON}
    writer.profiles(
        {"external_id": "1", "registered_at": NOON},
        {"external_id": "2", **alike},
        {"external_id": "2", "brand_id": "other", **alike},
    )
    assert pairs(look) == set()
    writer.profiles({"external_id": "1", **alike})
    asked = look("select external_id, brand_id from crm.players join crm.player_conflicts using (player_id)")
    assert {(row["external_id"], row["brand_id"]) for row in asked} == {("2", "kaasino"), ("2", "other")}


def test_an_account_that_was_alone_with_a_contact_is_told_when_earlier_ones_come_to_share_it(
    writer: Writer, look: Look
) -> None:
    """Two accounts with earlier rows take over its number in one page: all three are asked about."""
    known, phone = {"registered_at": NOON}, {"registered_at": NOON, "phone": "+34600000002"}
    writer.profiles(
        {"external_id": "1", **known},
        {"external_id": "2", "brand_id": "other", **known},
        {"external_id": "3", "brand_id": "other", **phone},
    )
    writer.profiles({"external_id": "1", **phone}, {"external_id": "2", "brand_id": "other", **phone})
    assert pairs(look) == {("2", "1", "phone"), ("3", "1", "phone")}


def test_an_address_that_fits_no_index_costs_nothing(writer: Writer, look: Look) -> None:
    """It is stored as it is, and nobody is found by it."""
    long = "x" * 30_000 + "@example.com"
    writer.profiles({"external_id": "7", "email": long}, {"external_id": "8", "email": long})
    assert [row["email"] for row in look("select email from crm.player_contacts")] == [long, long]
    assert pairs(look) == set()


# Any histories ------------------------------------------------------------------------------------------------------

_ACCOUNT: Final = st.fixed_dictionaries(
    {
        "external_id": st.sampled_from(["1", "2", "3", "4"]),
        "brand_id": st.sampled_from(["kaasino", "other"]),
        "email": st.sampled_from([None, "a@x.example.com", "A@X.example.com", "b@x.example.com"]),
        "phone": st.sampled_from([None, "+34600000001", "+34600000002"]),
        "status": st.sampled_from(["active", "active", "banned", "self_excluded"]),
    }
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pages=st.lists(st.lists(_ACCOUNT, min_size=1, max_size=6), min_size=1, max_size=5))
def test_whoever_shares_a_contact_is_in_a_conflict_and_nobody_is_merged(
    writer: Writer, look: Look, pages: list[list[dict[str, Any]]]
) -> None:
    """Whatever the pages: one row an account, its own status or conflict, and no shared contact without a question."""
    run, told = next(_RUNS), {}
    for page in pages:
        rows = [{**row, "external_id": f"{run}-{row['external_id']}", "registered_at": NOON} for row in page]
        for row in rows:
            for name in ("email", "phone"):
                row[name] = row[name] and row[name].replace("x.", f"{run}.").replace(
                    "+34600", f"+34{run % 100:02}{run // 100}"
                )
            told[row["brand_id"], row["external_id"]] = row
        writer.profiles(*rows)
    players = "crm.players p left join crm.player_contacts k using (player_id)"
    stored = look(
        f"select p.*, k.email, k.phone from {players} where external_id like %s order by player_id", f"{run}-%"
    )
    assert {(row["brand_id"], row["external_id"]) for row in stored} == set(told)
    assert len(stored) == len(told)
    asked = {row["player_id"] for row in look("select player_id from crm.player_conflicts")}
    for row in stored:
        own = told[row["brand_id"], row["external_id"]]["status"]
        assert row["status"] == ("conflict" if own == "active" and row["player_id"] in asked else own)
        earlier = [one for one in stored if one["player_id"] < row["player_id"] and _alike(one, row)]
        involved = look("select from crm.player_conflicts where %s in (player_id, other_id)", row["player_id"])
        assert involved or not earlier


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def same(name: str) -> bool:
        return one[name] is not None and (one[name] or "").lower() == (other[name] or "").lower()

    return bool(one["external_id"] != other["external_id"] and (same("email") or same("phone")))
