"""The configuration file: what an operator may write, and how every mistake is said at once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from connector.config import Config, load, parse
from connector.errors import Misconfigured
from connector.streams import STREAMS

if TYPE_CHECKING:
    from pathlib import Path

SECRET: Final = "hunter2-not-for-logs"
DOCUMENT: Final = """
store: {url: postgresql://crm@db.example.com/crm}
tenant: kaasino
base_currency: eur
reporting_timezone: Europe/Madrid
fx: {fixed: {EUR: 1, GBP: "1.17", usd: 0.92}}
exclude: {groups: ["00011", "00012"], tags: [SE, closed_PG, underage]}
sources:
  - name: kaasino
    url: ${REPLICA_URL}
    lateness: 2m
    wait: {busy: 100ms, idle: 1s}
    brands: {kaasino: {customer_id: "kaasino:{user_ext_id}", site_domain: casino.example.com}}
    streams:
      user_profile:
      deposits: {cursor: {column: dt_finalized, kind: time}}
      withdrawals: {}
      casino_bets: {view: casino_bets, mode: single_table, cursor: {column: id, kind: id}, key: [id],
                    columns: {bet_amount: stake}, values: {type: {"1": bet}}, extra: [round_id], hours: "00:00-24:00", start: now}
destinations:
  - name: customerio
    kind: customerio_track
    url: http://127.0.0.1:8651/
    site_id: site
    api_key_file: ${CREDENTIALS_DIRECTORY}/customerio
    events: [deposit_confirmed, withdrawal_confirmed]
    rate: 50
    max_age: 24h
web: {listen: "127.0.0.1:8650"}
"""


def minimal(**changes: Any) -> dict[str, Any]:
    source = {"name": "kaasino", "url": "postgresql://reader@replica.example.com/casino", "streams": {"deposits": {}}}
    return {"sources": [source | changes.pop("source", {})], **changes}


def destination(**changes: Any) -> dict[str, Any]:
    return {"name": "customerio", "kind": "customerio_track", "site_id": "site", "api_key": SECRET, **changes}


def mistakes(document: Any, **environment: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        parse(document, streams=STREAMS, environment=environment)
    text = str(caught.value)
    assert SECRET not in text
    return [line.strip() for line in text.splitlines()[1:]] or [text]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "customerio").write_text(f"{SECRET}\n", encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def loaded(path: Path) -> Config:
    environment = {
        "REPLICA_URL": f"postgresql://reader:{SECRET}@replica.example.com/casino",
        "CREDENTIALS_DIRECTORY": str(path.parent),
    }
    return load(path, streams=STREAMS, environment=environment)


def test_the_documented_file_loads(written: Path) -> None:
    """Variables, files, units, codes and short forms become what they mean."""
    settings = loaded(written)
    source, sink = settings.sources[0], settings.destinations[0]
    assert (settings.tenant, settings.base_currency, settings.reporting_timezone) == ("kaasino", "EUR", "Europe/Madrid")
    assert settings.fx.fixed == {"EUR": Decimal(1), "GBP": Decimal("1.17"), "USD": Decimal("0.92")}
    assert (source.lateness, source.lateness_max, source.tolerance, source.wait.busy, source.wait.idle) == (
        120,
        900,
        60,
        0.1,
        1,
    )
    assert list(source.streams) == ["user_profile", "deposits", "withdrawals", "casino_bets"]
    assert source.streams["casino_bets"].hours == (0, 1440)
    assert source.url.get_secret_value().endswith("@replica.example.com/casino")
    assert (sink.api_key.get_secret_value(), sink.base_url, sink.rate, sink.max_age, sink.refresh) == (
        SECRET,
        "http://127.0.0.1:8651",
        50,
        86_400,
        604_800,
    )
    assert sink.events == {"deposit_confirmed": "deposit_confirmed", "withdrawal_confirmed": "withdrawal_confirmed"}


def test_nothing_shows_a_secret(written: Path) -> None:
    """Neither repr nor a dump of the models holds passwords or keys."""
    settings = loaded(written)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())


def test_defaults_need_a_source_and_nothing_else() -> None:
    """A source with one stream is a configuration; the web page can be switched off."""
    settings = parse(minimal(web=None), streams=STREAMS, environment={})
    assert (settings.store.url.get_secret_value(), settings.marketable_statuses, settings.web) == (
        "embedded:./data",
        ["ACTIVE"],
        None,
    )
    assert (
        parse(minimal(destinations=[destination()]), environment={}).destinations[0].base_url
        == "https://track-eu.customer.io"
    )


def test_every_mistake_is_told_at_once_with_its_path() -> None:
    """One run names all of them: unknown keys, missing ones, values, variables, files and streams."""
    document = minimal(
        stor={},
        tenant="Big Casino",
        base_currency="E",
        source={
            "lateness": 5,
            "tolerence": "1m",
            "url": "${NOWHERE}",
            "streams": {"deposit": {}, "withdrawals": {"hours": "9-17"}},
        },
        destinations=[
            destination(kind="mail", rate=0, url="ftp://x", api_key_file="/nonexistent/key"),
            {"name": "b", "kind": "customerio_track"},
        ],
    )
    found = mistakes(document)
    paths = {line.split(": ")[0] for line in found}
    assert paths >= {
        "stor",
        "tenant",
        "base_currency",
        "sources[0].lateness",
        "sources[0].tolerence",
        "sources[0].url",
        "sources[0].streams.withdrawals.hours",
        "destinations[0].kind",
        "destinations[0].rate",
        "destinations[0].url",
        "destinations[0].api_key_file",
        "destinations[1].site_id",
        "destinations[1].api_key",
    }


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (minimal(stor={}), "stor: unknown key; did you mean 'store'?"),
        (minimal(source={"latness": "1m"}), "sources[0].latness: unknown key; did you mean 'lateness'?"),
        (
            minimal(source={"streams": {"deposits": {"curser": {}}}}),
            "sources[0].streams.deposits.curser: unknown key; did you mean 'cursor'?",
        ),
        (minimal(source={"wait": {"bussy": "1s"}}), "sources[0].wait.bussy: unknown key; did you mean 'busy'?"),
        (
            minimal(source={"brands": {"b": {"site": "x"}}}),
            "sources[0].brands.b.site: unknown key; did you mean 'site_domain'?",
        ),
        (
            minimal(destinations=[destination(regoin="eu")]),
            "destinations[0].regoin: unknown key; did you mean 'region'?",
        ),
        (minimal(exclude={"tag": []}), "exclude.tag: unknown key; did you mean 'tags'?"),
        (
            minimal(source={"streams": {"deposit": {}}}),
            "sources[0].streams: unknown stream 'deposit'; did you mean 'deposits'?",
        ),
        (minimal(web={"zzzz": 1}), "web.zzzz: unknown key; known: listen, token"),
    ],
)
def test_an_unknown_key_names_the_nearest(document: dict[str, Any], expected: str) -> None:
    """The nearest known key at that place, or all of them."""
    assert mistakes(document) == [expected]


@pytest.mark.parametrize(
    ("document", "path", "part"),
    [
        (minimal(source={"url": "${REPLICA_URL}"}), "sources[0].url", "REPLICA_URL is not set"),
        (minimal(source={"streams": {}}), "sources[0].streams", "at least 1"),
        ({"sources": []}, "sources", "at least 1"),
        ({}, "sources", "is required"),
        (minimal(store={"url": f"mysql://root:{SECRET}@db.example.com/x"}), "store.url", "postgresql://"),
        pytest.param(
            *(minimal(store={"url_file": "/nonexistent/url"}), "store.url_file", "cannot read /nonexistent/url"),
        ),
        pytest.param(
            *(minimal(store={"url": "${STORE_URL}"}), "store.url", "STORE_URL is not set"),
        ),
        (
            minimal(destinations=[destination(api_key_file="/nonexistent/key")]),
            "destinations[0].api_key_file",
            "stands beside api_key",
        ),
        (minimal(fx={"fixed": {"GBP": 0}}), "fx.fixed.GBP", "above zero"),
        (minimal(fx={"fixed": {"GBP": "NaN"}}), "fx.fixed.GBP", "above zero"),
        (minimal(fx={"fixed": {"GBP": "one"}}), "fx.fixed.GBP", "not a number"),
        (minimal(fx={"fixed": {"FUN": 1}}), "fx", "FUN is play money and has a fixed rate"),
        (minimal(currencies={"jpy": 2}), "currencies", "JPY is not yours to define"),
        (minimal(currencies={"ETH": 9}), "currencies.ETH", "less than or equal to 8"),
        (minimal(source={"scales": {"ETH": 19}}), "sources[0].scales.ETH", "less than or equal to 18"),
        (minimal(reporting_timezone="Madrid"), "reporting_timezone", "IANA"),
        (minimal(source={"lateness": "10m", "lateness_max": "5m"}), "sources[0]", "lateness_max"),
        (minimal(source={"streams": {"deposits": {"key": []}}}), "sources[0].streams.deposits.key", "at least 1"),
        (
            minimal(source={"streams": {"deposits": {"cursor": {"column": "id"}}}}),
            "sources[0].streams.deposits.cursor.kind",
            "is required",
        ),
        (minimal(destinations=[destination(), destination()]), "destinations", "'customerio' is used twice"),
        (minimal(destinations=[destination(api_key=[SECRET])]), "destinations[0].api_key", "string"),
    ],
)
def test_a_mistake_names_its_place_and_the_remedy(document: dict[str, Any], path: str, part: str) -> None:
    """Each kind of mistake has its path and its own words, and never the value of a secret."""
    (line,) = mistakes(document)
    assert line.startswith(f"{path}: ")
    assert part in line


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"base_currency": "GBP", "fx": {"fixed": {"GBP": "1.17"}}}, "fx.fixed.GBP must be 1"),
        ({"base_currency": "FUN"}, "FUN is play money"),
    ],
)
def test_the_base_currency_is_worth_itself(changes: dict[str, Any], part: str) -> None:
    """Totals in it are neither multiplied nor play."""
    (line,) = mistakes(minimal(**changes))
    assert part in line


def test_a_configured_currency_stands_beside_the_usual_ones() -> None:
    """Naming one does not lose the others, and one of them may be named anew."""
    known = parse(minimal(currencies={"sol": 5, "ETH": 6})).currencies
    assert (known["SOL"], known["ETH"], known["BTC"], known["USDT"]) == (5, 6, 8, 6)


def test_variables_stand_anywhere_and_more_than_once() -> None:
    """${A}${B} inside any text, in lists too; each missing one is told with its path."""
    document = minimal(
        source={"url": "postgresql://${A}:${B}@replica.example.com/x"}, exclude={"tags": ["${C}", "x-${A}"]}
    )
    settings = parse(document, environment={"A": "a", "B": SECRET, "C": "c"})
    assert settings.sources[0].url.get_secret_value() == f"postgresql://a:{SECRET}@replica.example.com/x"
    assert settings.exclude.tags == ["c", "x-a"]
    assert {line.split(":")[0] for line in mistakes(document, A="a")} == {"sources[0].url", "exclude.tags[0]"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tenant: a\ntenant: b\nsources: []\n", "key 'tenant' twice"),
        ("sources:\n  - {name: a, name: b}\n", "key 'name' twice"),
        ("sources: [\n", "not valid YAML"),
        ("", "is empty or not a mapping"),
        ("- a\n- b\n", "is empty or not a mapping"),
    ],
)
def test_what_is_not_a_configuration_is_said_plainly(text: str, part: str, tmp_path: Path) -> None:
    """A key written twice, broken YAML and other documents are mistakes with the file's name."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"config\.yaml") as caught:
        load(path)
    assert part in str(caught.value)


@pytest.mark.parametrize("broken", [f"api_key: {SECRET}: x", f'api_key: "{SECRET}\n'], ids=["two colons", "open quote"])
def test_broken_yaml_does_not_show_a_secret(broken: str, tmp_path: Path) -> None:
    """The place is enough to find the mistake."""
    path = tmp_path / "config.yaml"
    path.write_text(f"destinations:\n  - name: customerio\n    {broken}\n", encoding="utf-8")
    with pytest.raises(Misconfigured) as caught:
        load(path)
    assert SECRET not in str(caught.value)


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    """The remedy stands in the message."""
    with pytest.raises(Misconfigured, match="--config"):
        load(tmp_path / "nowhere.yaml")


def test_the_document_of_this_test_is_plain_yaml() -> None:
    """What operators paste is read by any YAML parser."""
    assert set(yaml.safe_load(DOCUMENT)) <= set(Config.model_fields)
