"""The configuration: YAML and environment in, frozen models out, every mistake reported at once with its path.

Owns the names and defaults that an operator writes. It opens no connection and knows no stream's columns.
"""

from __future__ import annotations

import difflib
import os
from decimal import Decimal
from pathlib import Path  # noqa: TC003 - a field's type
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from connector import contacts, document
from connector.currencies import CRYPTO, completed
from connector.errors import Misconfigured
from connector.event import BALANCE_CARRIERS, PLAYER_BALANCE
from connector.units import Code, Hours, Name, Rate, Seconds, Zone  # noqa: TC001 - types of fields

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_TRACK_URLS: Final = {"eu": "https://track-eu.customer.io", "us": "https://track.customer.io"}


class Model(BaseModel):
    """Base of every group of settings: an unknown key is a mistake, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Store(Model):
    """Where the CRM store is: the directory of an embedded server, or the URL of a PostgreSQL."""

    url: SecretStr = SecretStr("embedded:./data")

    @field_validator("url")
    @classmethod
    def _scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("embedded:", "postgresql://", "postgres://")):
            raise ValueError("must be embedded:DIRECTORY or postgresql://USER@HOST/DATABASE")
        return value


class Fx(Model):
    """Exchange rates; an amount in a currency without one is kept, and waits to enter a total in the base currency."""

    #: Units of the base currency for one unit of the named one: at any time, whatever else says of it.
    fixed: dict[Code, Rate] = {}
    #: Play money: it has no rate and stays out of every total.
    play: list[Code] = ["FUN"]
    #: A CSV of rates that change: currency,valid_from,rate and perhaps base; read at every start.
    file: Path | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Fx:
        if both := sorted(set(self.fixed) & set(self.play)):
            raise ValueError(f"{both[0]} is play money and has a fixed rate: which is it?")
        return self


class Exclude(Model):
    """The player groups and tags, as the source writes them, that forbid marketing whatever the status."""

    groups: list[str] = []
    tags: list[str] = []


class PersonalData(Model):
    """How e-mail addresses and phone numbers are kept; without keys as they come."""

    #: Lines `ID KEY` and one `match KEY`, keys of 32 bytes in base64: the greatest ID encrypts, the others still read.
    keys: SecretStr | None = None

    @field_validator("keys")
    @classmethod
    def _whole(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            contacts.parse(value.get_secret_value())
        return value


class Cursor(Model):
    """The column that a view is read along, where it is not the contract's: a time, or an id that only grows."""

    column: str
    kind: Literal["time", "id"]


class Stream(Model):
    """One polled view. What is left out comes from the stream's contract."""

    view: str | None = None
    mode: Literal["single_table", "separate", "win_per_bet"] | None = None
    cursor: Cursor | None = None
    key: Annotated[list[str], Field(min_length=1)] | None = None
    #: Contract column -> the view's own name for it.
    columns: dict[str, str] = {}
    #: Contract column -> the view's value -> the contract's value ({type: {"1": bet}}).
    values: dict[str, dict[str, str]] = {}
    extra: list[str] = []
    hours: Hours | None = None
    start: str | None = None


class Wait(Model):
    """Seconds between two passes over a source: after one that has read something, and after one that has not."""

    busy: Seconds = 0.1
    idle: Seconds = 1.0


class Backfill(Model):
    """How gently history is read: query time in each second over all workers, hours, the lag of the replica at most."""

    busy: Annotated[Seconds, Field(gt=0, le=16)] = 0.5
    hours: Hours | None = None
    max_lag: Seconds = 30.0


class Brand(Model):
    """How one brand's players are named at destinations: the template of their id, the brand's code and its site."""

    customer_id: str = "{ext_brand_id}:{user_ext_id}"
    server_codename: str | None = None
    site_domain: str | None = None

    @field_validator("customer_id")
    @classmethod
    def _template(cls, value: str) -> str:
        try:
            one, other = (value.format(ext_brand_id="b", user_ext_id=user) for user in ("1", "2"))
        except (LookupError, ValueError, AttributeError, TypeError):
            raise ValueError("only {user_ext_id} and {ext_brand_id} can stand in braces") from None
        if one == other:
            raise ValueError("must hold {user_ext_id}, or every player would be the same person")
        return value


class Source(Model):
    """One operator database: its streams, how late its rows may appear and how gently it is read; times in seconds."""

    name: Name
    url: SecretStr
    lateness: Seconds = 120.0
    lateness_max: Seconds = 900.0
    tolerance: Seconds = 60.0
    wait: Wait = Wait()
    backfill: Backfill = Backfill()
    statement_timeout: Seconds = 30.0
    page_rows: Annotated[int, Field(ge=1, le=200_000)] = 40_000
    #: Currency -> its views give amounts as whole numbers of 10^-places of it; one that is not named is in plain units.
    scales: dict[Code, Annotated[int, Field(ge=0, le=18)]] = {}
    brands: dict[str, Brand] = {}
    streams: Annotated[dict[str, Stream], Field(min_length=1)]

    @field_validator("wait", mode="before")
    @classmethod
    def _one_duration(cls, value: object) -> object:
        return {"busy": value, "idle": value} if isinstance(value, str) else value

    @field_validator("streams", mode="before")
    @classmethod
    def _empty_streams(cls, value: object) -> object:
        return (
            {name: {} if body is None else body for name, body in value.items()} if isinstance(value, dict) else value
        )

    @field_validator("streams")
    @classmethod
    def _known_streams(cls, value: dict[str, Stream], info: ValidationInfo) -> dict[str, Stream]:
        known = (info.context or {}).get("streams", ())
        if unknown := [name for name in value if known and name not in known]:
            raise ValueError("; ".join(f"unknown stream {name!r}{_nearest(name, known)}" for name in unknown))
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Source:
        if self.lateness_max < self.lateness:
            raise ValueError("lateness_max must not be below lateness")
        return self


class Attributes(Model):
    """The payment attributes of a player: a count and a sum for every currency and window, beside `total`'s.

    An ISO or crypto code stands for amounts in that currency; `total` is all real money in the base currency.
    """

    currencies: list[Code] = ["EUR", "GBP", "TRX", "FUN"]
    cashout_currencies: list[Code] = ["EUR", "GBP", "TRX"]
    windows: list[Literal["previous_day", "last_7", "last_30", "last_90"]] = [
        "previous_day",
        "last_7",
        "last_30",
        "last_90",
    ]


class Destination(Model):
    """A Customer.io Track workspace, or anything compatible with it at `url`."""

    name: Name
    kind: Literal["customerio_track"]
    region: Literal["eu", "us"] = "eu"
    url: str | None = None
    site_id: SecretStr
    api_key: SecretStr
    workspace_id: int | None = None
    #: Canonical event name -> its name at the destination; a list keeps the names; empty sends profiles only.
    events: dict[str, str] = {"deposit_confirmed": "deposit_confirmed", "withdrawal_confirmed": "withdrawal_confirmed"}
    attributes: Attributes = Attributes()
    #: Segment -> an attribute that says whether the player is in it, or the number of a manual segment to keep in step.
    segments: dict[str, str | int] = {}
    rate: Annotated[float, Field(gt=0)] = 100.0
    lanes: Annotated[int, Field(ge=1, le=32)] = 4
    max_age: Seconds = 86400.0
    refresh: Seconds = 604800.0
    timeout: Seconds = 30.0

    @field_validator("events", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return {name: name for name in value} if isinstance(value, list) else value

    @field_validator("events")
    @classmethod
    def _known_events(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = (info.context or {}).get("events", ())
        if unknown := [name for name in value if known and name not in known]:
            raise ValueError("; ".join(f"unknown event {name!r}{_nearest(name, known)}" for name in unknown))
        return value

    @field_validator("site_id", "api_key")
    @classmethod
    def _filled(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().strip():
            raise ValueError("is empty")
        return value

    @field_validator("url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else value

    @property
    def subscribed(self) -> list[str]:
        """Return the canonical events that the destination is told of, or takes balances from."""
        carriers = BALANCE_CARRIERS if PLAYER_BALANCE in self.events else ()
        return list(dict.fromkeys((*(name for name in self.events if name != PLAYER_BALANCE), *carriers)))

    @property
    def base_url(self) -> str:
        """Return the address of the API: `url` where it is set, else the region's own."""
        return self.url or _TRACK_URLS[self.region]


class Web(Model):
    """Where the process answers requests, as HOST:PORT, and the token that a request needs to change anything."""

    listen: str = "127.0.0.1:8650"
    token: SecretStr | None = None

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().strip()) < 16:
            raise ValueError("is too short for a secret: 16 characters or more, as `openssl rand -hex 32` prints them")
        return value


class Config(Model):
    """The whole file: one tenant, what counts as marketable, and its sources, store and destinations."""

    tenant: Name = "default"
    base_currency: Code = "EUR"
    reporting_timezone: Zone = "UTC"
    #: Statuses of core_account_status that may be marketed to; everything else is unmarketable.
    marketable_statuses: list[str] = ["ACTIVE"]
    store: Store = Store()
    fx: Fx = Fx()
    #: Decimal places of the smallest unit of currencies that ISO 4217 does not know, beside the usual ones.
    currencies: Annotated[dict[Code, Annotated[int, Field(ge=0, le=8)]], BeforeValidator(completed)] = CRYPTO
    exclude: Exclude = Exclude()
    personal_data: PersonalData = PersonalData()
    sources: Annotated[list[Source], Field(min_length=1)]
    destinations: list[Destination] = []
    web: Web | None = Web()

    @field_validator("sources", "destinations")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        names = [item.name for item in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]!r} is used twice")
        return value

    @model_validator(mode="after")
    def _base_is_worth_itself(self) -> Config:
        if self.fx.fixed.get(self.base_currency, Decimal(1)) != 1:
            raise ValueError(f"fx.fixed.{self.base_currency} must be 1: it is the base currency")
        if self.base_currency in self.fx.play:
            raise ValueError(f"base_currency {self.base_currency} is play money, which enters no total")
        return self


def load(
    path: Path,
    *,
    streams: Collection[str] = (),
    events: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration file; raise Misconfigured with every mistake, one line each.

    `streams` and `events` are the names that exist; empty: any goes.
    """
    raw = document.read(path)
    return parse(raw, streams=streams, events=events, environment=environment, origin=str(path))


def parse(
    raw: object,
    *,
    streams: Collection[str] = (),
    events: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
    origin: str = "configuration",
) -> Config:
    """Check an already loaded document; the contract is `load`'s."""
    if not isinstance(raw, dict):
        raise Misconfigured(f"{origin} is empty or not a mapping", hint="copy config.example.yaml")
    mistakes: dict[str, str] = {}
    expanded = document.expand(raw, os.environ if environment is None else environment, mistakes)
    config: Config | None = None
    try:
        config = Config.model_validate(expanded, context={"streams": streams, "events": events})
    except ValidationError as error:
        for path, message in _explain(error):
            if f"{path}_file" not in mistakes:
                mistakes.setdefault(path, message)
    if mistakes or config is None:
        lines = "\n".join(f"  {path}: {message}" if path else f"  {message}" for path, message in mistakes.items())
        raise Misconfigured(f"{origin} has {len(mistakes)} mistake(s):\n{lines}")
    return config


def _explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = _path(item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_nearest(str(item['loc'][-1]), _siblings(item['loc']))}"
        elif item["type"] == "missing":
            message = "is required"
        yield path, message


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _siblings(location: tuple[int | str, ...]) -> Collection[str]:
    """Return the keys known where an unknown one stands, by walking the models along its path."""
    parents = {"sources": "Source", "destinations": "Destination", "streams": "Stream", "brands": "Brand"}
    parents["personal_data"] = "PersonalData"
    known: Collection[str] = Config.model_fields
    for part in location[:-1]:
        model = _MODELS.get(parents.get(str(part), str(part).capitalize()))
        known = model.model_fields if model else known
    return known


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


_MODELS: Final[dict[str, type[Model]]] = {
    model.__name__: model
    for model in (Store, Fx, Exclude, PersonalData, Cursor, Stream, Wait, Brand, Source, Attributes, Destination, Web)
}
