"""`user_profile`: every user by `dt_update` -> the profile frame (identify); its events come from player.changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import polars as pl
from polars import selectors

from connector import contacts
from connector.event import properties
from connector.normalised import Normalised
from connector.player import PROFILES, eligible, ucrm_status
from connector.streams import values
from connector.streams.contract import Binding, Column, Context, Contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_GENDERS: Final = {"MALE": "m", "M": "m", "FEMALE": "f", "F": "f", "UNKNOWN": "unknown"}
#: No status is longer: of one that is, the beginning is as unknown as the whole, and never costs the row.
_STATUS_CHARACTERS: Final = 200
#: Optional columns beyond the guide's: kept as traits under these names.
_TRAITS: Final = (
    *("timezone", "last_login_country", "stag", "ga_id", "duplicates", "accept_bonuses", "promo_phone"),
    *("partner_promos", "subscription_token", "anonymous_id", "kyc_level", "tier_code", "is_test"),
)
#: What may exclude a player: unreadable, it does.
_EXCLUDING: Final = ("tags", "groups", "cooling_off_until", "self_excluded_until")


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. A user row never costs its status: an unknown one is kept raw, unmarketable."""
    page = page.with_columns_seq(pl.col(binding.columns["core_account_status"]).str.slice(0, _STATUS_CHARACTERS))
    typed = values.typed(page, binding)
    typed = typed.with_columns_seq(
        values.history(page, typed, binding, context).alias("history"), page[binding.cursor].alias("cursor")
    )
    columns = binding.contract.columns_for(binding.mode)
    good, rejections = values.split(page, typed, columns, [])
    phones, lost = _phones(good)
    wallets, unread = _wallets(good)
    good = good.with_columns_seq(phones, wallets)
    told = [rejections, *_refusals(page, good, {"user_phone": lost, "wallets": unread})]
    return Normalised(profiles=_profiles(good, binding, context), rejections=pl.concat(told))


def _profiles(good: pl.DataFrame, binding: Binding, context: Context) -> pl.DataFrame:
    raw = pl.col("core_account_status").str.strip_chars().str.to_uppercase()
    traits = {
        **{name: pl.col(name) for name in _TRAITS},
        "email_confirmed_at": pl.col("email_confirmed_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "unreadable_exclusion": pl.when(_unreadable(good)).then(pl.lit("true")),
        **{name: pl.col(f"extra:{name}") for name in binding.extra},
    }
    encoded = properties(good.select_seq(**traits)).alias("traits")
    frame = good.with_columns_seq(
        encoded,
        brand_id="ext_brand_id",
        external_id="user_ext_id",
        status_raw=raw,
        status=ucrm_status(raw),
        registered_at="core_registration_date",
        language=pl.col("core_user_language").str.strip_chars().str.to_uppercase().str.slice(0, 2),
        default_currency_code="core_wallet_currency",
        username="core_username",
        first_name="user_first_name",
        last_name="user_last_name",
        email="user_email",
        phone="user_phone",
        country=pl.col("user_country").str.strip_chars().str.to_uppercase(),
        gender=pl.when(pl.col("core_user_gender") != "unknown").then(pl.col("core_user_gender")),
        date_of_birth="user_birthdate",
        kyc_status="core_kyc_status",
        affiliate_id="core_affiliate_id",
        affiliate_str="core_affiliate_str",
        email_disabled="core_is_email_disabled_by_platform",
        sms_disabled="core_is_sms_disabled_by_platform",
        push_disabled="core_is_push_disabled_by_platform",
        calls_disabled="core_is_ivr_disabled",
        rg_self_excluded_until="self_excluded_until",
        source_updated_at="dt_update",
        **{name: _listed(name, good, binding) for name in ("tags", "groups")},
    )
    frame = frame.with_columns_seq(eligible=eligible(context.rules, unreadable=_unreadable(good)))
    return frame.select_seq(pl.col(name).cast(dtype) for name, dtype in PROFILES.items())


def _unreadable(good: pl.DataFrame) -> pl.Expr:
    """Return whether something that may exclude a player could not be read: then it does."""
    named = [f"bad:{name}" for name in _EXCLUDING]
    return pl.any_horizontal([pl.lit(value=False), *(name for name in named if name in good.columns)])


def _listed(name: str, good: pl.DataFrame, binding: Binding) -> pl.Expr:
    """Return a list column, empty where the view has it and says nothing: only what it can't say stays unknown."""
    if name not in binding.columns:
        return pl.col(name)
    bad = pl.col(f"bad:{name}") if f"bad:{name}" in good.columns else pl.lit(value=False)
    return pl.when(bad).then(pl.col(name)).otherwise(pl.col(name).fill_null("[]"))


def _phones(good: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return phones in E.164 by the user's country, and where one was given that is no phone number.

    A ciphertext of the operator's own stays as it is: digits in it are no number.
    """
    pairs = zip(good["user_phone"], good["user_country"], strict=True)
    parsed = pl.Series("user_phone", list(_e164(pairs)), dtype=pl.String)
    return parsed, good["user_phone"].is_not_null() & parsed.is_null()


def _e164(pairs: Iterable[tuple[str | None, str | None]]) -> Iterable[str | None]:
    import phonenumbers  # a sixteenth of a second: not at the start of every command

    for text, country in pairs:
        if text is None or contacts.opaque(text):
            yield text
            continue
        try:
            number = phonenumbers.parse(text, (country or "").strip().upper() or None)
        except phonenumbers.NumberParseException:
            yield None
        else:
            possible = phonenumbers.is_possible_number(number)
            yield phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if possible else None


def _wallets(good: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return wallets as a JSON array of network and address, and where one was given that is none."""
    parsed = pl.Series("wallets", [None if text is None else _addresses(text) for text in good["wallets"]], pl.String)
    return parsed, good["wallets"].is_not_null() & parsed.is_null()


def _addresses(text: str) -> str | None:
    try:
        said = json.loads(text)
        listed = said if isinstance(said, list) else [said]
        pairs = {(str(wallet["network"]).strip().lower(), str(wallet["address"]).strip()) for wallet in listed}
        sizes = {len(part.encode()) for pair in pairs for part in pair}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if any(not 0 < size <= values.ID_BYTES for size in sizes) or any("\0" in part for pair in pairs for part in pair):
        return None
    return json.dumps([{"network": network, "address": address} for network, address in sorted(pairs)])


def _refusals(page: pl.DataFrame, good: pl.DataFrame, lost: Mapping[str, pl.Series]) -> Iterable[pl.DataFrame]:
    """Yield the rejections of values that were found to be none after the page was split."""
    for name, bad in lost.items():
        if bad.any():
            marked = good.drop(selectors.starts_with("long:")).with_columns_seq(bad.alias(f"bad:{name}"))
            yield values.split(page, marked, [_FOUND[name]], [])[1]


_FOUND: Final = {"user_phone": Column("user_phone", "phone"), "wallets": Column("wallets", "list")}
CONTRACT: Final = Contract(
    stream="user_profile",
    columns=(
        Column("dt_update", "time", required=True, lenient=True),
        Column("ext_brand_id", "id", required=True, aliases=("brand_id",)),
        Column("user_ext_id", "id", required=True, aliases=("external_user_id",)),
        Column("core_account_status", required=True, aliases=("core_external_account_status",)),
        Column("core_registration_date", "time", required=True, lenient=True),
        Column("core_user_language", required=True, lenient=True),
        Column("core_wallet_currency", "currency", required=True, lenient=True),
        Column("core_username"),
        Column("user_birthdate", "time"),
        Column("user_country"),
        Column("user_email"),
        Column("user_first_name"),
        Column("user_last_name"),
        Column("user_phone"),
        Column("core_affiliate_id", "id"),
        Column("core_affiliate_str"),
        Column("core_is_email_disabled_by_platform", "flag"),
        Column("core_is_sms_disabled_by_platform", "flag"),
        Column("core_is_push_disabled_by_platform", "flag"),
        Column("core_is_ivr_disabled", "flag", aliases=("core_is_phone_disabled_by_platform",)),
        Column("core_user_gender", "enum", values=_GENDERS),
        Column("core_kyc_status"),
        Column("tags", "list"),
        Column("groups", "list"),
        Column("cooling_off_until", "time"),
        Column("self_excluded_until", "time"),
        Column("last_login_at", "time"),
        Column("telegram_id", "id"),
        Column("wallets"),
        Column("email_confirmed_at", "time"),
        *(Column(name) for name in _TRAITS),
    ),
    cursor=("dt_update", "time"),
    keys=(("ext_brand_id", "user_ext_id"),),
    business_time="dt_update",
    normalise=normalise,
    brings="profiles",
)
