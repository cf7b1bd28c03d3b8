"""Contacts, e-mail address and phone number: encrypted, found again, masked. No file and no SQL here.

A contact is stored as the source wrote it, or encrypted as `enc:v1:ID:BASE64`. What finds it again (`match`) is the
address in lower case or the number in E.164: plain, or a digest under a key of its own.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.errors import Halted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

KINDS: Final = ("email", "phone")
#: Columns of crm.player_contacts that hold a contact, and its kind.
COLUMNS: Final = {"email": "email", "phone": "phone", "lead_email": "email", "lead_phone": "phone"}
_ENCRYPTED: Final = re.compile(r"enc:v1:(\d{1,9}):([A-Za-z0-9+/]+=*)")
#: A source may write a text that only looks like ours: it is marked, and the mark taken off again.
_LOOKS_ENCRYPTED: Final = "enc:v"
_NOT_OURS: Final = "enc:v0:"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
#: A longer address is kept, and known by nothing: an index could not hold it.
_MATCHED_BYTES: Final = 500
_E164: Final = r"^\+[0-9]{5,15}$"
_OPAQUE: Final = re.compile(r"[A-Za-z0-9+/=_.:$~-]{20,}")
_LETTERS: Final = 4
_ADDRESS: Final = re.compile(r"[^\s\"'<>(){}\[\],;:=|]+@[^\s\"'<>(){}\[\],;:=|]+")
_NUMBER: Final = re.compile(r"\+\d{7,15}(?!\d)")
#: What a message quotes behind a colon is a value; names stand elsewhere.
_VALUE: Final = re.compile(r""": (["']).*\1""", re.DOTALL)
_KEYS_REMEDY: Final = "put the key back into personal_data.keys, and restart what runs with an older file"


class _Key:
    """One encrypting key: what encrypts and what chooses nonces are derived from it, and never the same."""

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only where contacts are encrypted

        self.cipher = AESGCM(hmac.digest(secret, b"encrypt", "sha256"))
        self.nonces = hmac.digest(secret, b"nonce", "sha256")


@dataclass(frozen=True)
class Keys:
    """The keys of contacts: the greatest id encrypts, all decrypt, and `match` digests.

    Equal contacts of one tenant and kind are equal texts under one key, so that an unchanged profile is seen to be
    unchanged. For that the nonce is a keyed hash of the contact. GCM breaks when one nonce serves two plaintexts: here
    two plaintexts have two nonces, except where 96 bits of HMAC-SHA256 collide, which among a thousand million
    contacts happens with a chance of one in 10^11. It tells who reads the table which rows are equal, as `match` does.

    The match key is for good: digests are compared with digests of years ago, so rotation leaves it alone.
    """

    secrets: Mapping[int, bytes] = field(repr=False)
    match_secret: bytes = field(repr=False)
    #: What the views call the columns of contacts, where these stand in refused rows.
    columns: frozenset[str] = frozenset({"user_email", "user_phone"})
    _keys: dict[int, _Key] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._keys.update({number: _Key(secret) for number, secret in self.secrets.items()})

    @property
    def newest(self) -> int:
        """Return the id of the key that encrypts."""
        return max(self._keys)

    def seal(self, tenant: str, kind: str, text: str) -> str:
        """Encrypt a contact with the newest key, bound to tenant and kind: elsewhere it can't be decrypted."""
        key, plain, bound = self._keys[self.newest], text.encode(), _bound(tenant, kind)
        nonce = hmac.digest(key.nonces, bound + plain, "sha256")[:_NONCE_BYTES]
        sealed = base64.b64encode(nonce + key.cipher.encrypt(nonce, plain, bound))
        return f"enc:v1:{self.newest}:{sealed.decode()}"

    def digest(self, tenant: str, kind: str, matched: str) -> str:
        """Return what finds a contact whose plain form is `matched`."""
        found = hmac.digest(self.match_secret, _bound(tenant, kind) + matched.encode(), "sha256")
        return base64.b64encode(found).decode()

    def unseal(self, tenant: str, kind: str, number: int, sealed: str) -> str:
        """Decrypt. Raises Halted where key, tenant or kind are not those it was encrypted with."""
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(number)
        if key is None:
            raise Halted(f"contacts are encrypted with key {number}, which is not known here", hint=_KEYS_REMEDY)
        try:
            raw = base64.b64decode(sealed, validate=True)
            plain = key.cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(tenant, kind))
        except (InvalidTag, binascii.Error, ValueError):
            text = f"a contact can't be decrypted with key {number}"
            raise Halted(text, hint="key, tenant or row are not those of the time: restore what was changed") from None
        return plain.decode()


def parse(text: str) -> Keys:
    """Read lines `ID KEY` and one `match KEY`; raises ValueError with every mistake, and never with a value."""
    secrets: dict[int, bytes] = {}
    matches: list[bytes] = []
    mistakes: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        secret = _secret(words[1]) if len(words) == 2 else None
        if len(words) != 2 or not re.fullmatch(r"match|[1-9]\d{0,8}", words[0], re.ASCII):
            mistakes.append(f"line {number} is neither `ID KEY` (ID: 1, 2, ...) nor `match KEY`")
        elif secret is None:
            mistakes.append(f"line {number}: the key is not {_KEY_BYTES} bytes in base64 (openssl rand -base64 32)")
        elif secret in {*secrets.values(), *matches}:
            mistakes.append(f"line {number}: the key stands in another line already")
        elif words[0] == "match":
            matches.append(secret)
        elif int(words[0]) in secrets:
            mistakes.append(f"line {number}: the id stands in another line already")
        else:
            secrets[int(words[0])] = secret
    if not mistakes and (not secrets or len(matches) != 1):
        mistakes.append("there must be at least one line `ID KEY`, and one line `match KEY`")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return Keys(secrets, matches[0])


def _secret(text: str) -> bytes | None:
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return secret if len(secret) == _KEY_BYTES else None


def _bound(tenant: str, kind: str) -> bytes:
    return f"{tenant}\0{kind}\0".encode()


# Into the store, and out of it --------------------------------------------------------------------------------------


def staged(profiles: pl.DataFrame, tenant: str, keys: Keys | None) -> pl.DataFrame:
    """Return profiles as they may be written: contacts encrypted where there are keys; `email_match`, `phone_match`.

    A ciphertext of the operator's own is encrypted like any text, comes out as it went in, and matches nothing.
    """
    if keys is None:
        matches = {f"{kind}_match": plain_match(kind) for kind in KINDS}
        return profiles.with_columns_seq(*(_marked(pl.col(kind)).alias(kind) for kind in KINDS), **matches)
    columns: dict[str, pl.Series] = {}
    for kind in KINDS:
        pairs = [sealed(text, tenant, kind, keys) for text in profiles[kind]]
        columns[kind] = pl.Series([text for text, _ in pairs], dtype=pl.String)
        columns[f"{kind}_match"] = pl.Series([match for _, match in pairs], dtype=pl.String)
    return profiles.with_columns_seq(**columns)


def sealed(text: str | None, tenant: str, kind: str, keys: Keys) -> tuple[str | None, str | None]:
    """Return a contact encrypted with the newest key, and the digest that finds it."""
    if text is None:
        return None, None
    matched = _matched(kind, text)
    return keys.seal(tenant, kind, text), None if matched is None else keys.digest(tenant, kind, matched)


def _matched(kind: str, text: str) -> str | None:
    if kind == "phone":
        return text if re.fullmatch(_E164, text) else None
    return text.lower() if "@" in text and len(text.encode()) <= _MATCHED_BYTES else None


def plain_match(kind: str) -> pl.Expr:
    """Return what a plain contact of a frame is found by: nothing where it is no address and no number."""
    text = pl.col(kind)
    if kind == "phone":
        return pl.when(text.str.contains(_E164)).then(text)
    known = text.str.contains("@", literal=True) & (text.str.len_bytes() <= _MATCHED_BYTES)
    return pl.when(known).then(text.str.to_lowercase())


def _marked(text: pl.Expr) -> pl.Expr:
    return pl.when(text.str.starts_with(_LOOKS_ENCRYPTED)).then(pl.lit(_NOT_OURS) + text).otherwise(text)


def opened(row: Mapping[str, Any], tenant: str, keys: Keys | None) -> dict[str, Any]:
    """Return a row with its contacts as the source wrote them. Raises Halted where the key is missing."""
    told = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    return {**row, **{name: _plain(tenant, COLUMNS[name], text, keys) for name, text in told.items()}}


def _plain(tenant: str, kind: str, text: str, keys: Keys | None) -> str:
    if text.startswith(_NOT_OURS):
        return text.removeprefix(_NOT_OURS)
    ours = _ENCRYPTED.fullmatch(text)
    if ours is None:
        return text
    if keys is None:
        raise Halted("contacts are encrypted, and personal_data.keys is not set", hint=_KEYS_REMEDY)
    return keys.unseal(tenant, kind, int(ours[1]), ours[2])


def opaque(text: str) -> bool:
    """Return whether a text that should be a phone number is the operator's ciphertext: long, one word, no number."""
    letters = [char for char in text if char.isalpha()]
    mixed = any(char.isdigit() for char in text) or len({char.isupper() for char in letters}) == 2
    known = text.lower().startswith("tel:")
    return len(letters) >= _LETTERS and mixed and not known and _OPAQUE.fullmatch(text) is not None


# Before other eyes --------------------------------------------------------------------------------------------------


def mask(text: str) -> str:
    """Return what of a personal value may be shown: `a***@e***.com`, `+34******01`, of anything else one letter."""
    if "@" in text:
        name, _, domain = text.rpartition("@")
        host, dot, top = domain.rpartition(".")
        return f"{name[:1]}***@{(host or top)[:1]}***{dot}{top if dot else ''}"
    if re.match(_E164, text):
        return f"{text[:3]}******{text[-2:]}"
    return f"{text[:1]}***"


def scrubbed(text: str) -> str:
    """Return a text of somebody else's with the addresses and numbers in it masked."""
    return _NUMBER.sub(lambda found: mask(found[0]), _ADDRESS.sub(lambda found: mask(found[0]), text))


def told(message: str) -> str:
    """Return what a server said without the values in it: `invalid input syntax for type json: ...`."""
    return scrubbed(_VALUE.sub(": ...", message))


def hidden(document: str, names: Collection[str], *, keep: Collection[str] = ()) -> str:
    """Return a JSON document with what stands under these names masked, and addresses elsewhere; `keep` is kept."""
    return json.dumps(_hidden(json.loads(document), "", frozenset(names), frozenset(keep)), ensure_ascii=False)


def _hidden(value: Any, name: str, names: frozenset[str], keep: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return dict(_hidden_items(value, names, keep))
    if isinstance(value, list):
        return [_hidden(item, name, names, keep) for item in value]
    if not isinstance(value, str) or name in keep:
        return value
    return mask(value) if name in names else scrubbed(value)


def _hidden_items(value: Mapping[str, Any], names: frozenset[str], keep: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        yield name, _hidden(item, name, names, keep)
