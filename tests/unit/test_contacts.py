"""Contacts: keys are read or every mistake is told, what is encrypted comes back, what is masked says nothing."""

from __future__ import annotations

import ast
import base64
import json
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, strategies as st

from connector import config, contacts
from connector.errors import Halted, Misconfigured

ROOT: Final = Path(__file__).parents[2]


def key(byte: int) -> str:
    return base64.b64encode(bytes([byte]) * 32).decode()


OLD: Final = contacts.parse(f"1 {key(1)}\nmatch {key(9)}")
BOTH: Final = contacts.parse(f"# rotated in March\n1 {key(1)}\n\n2 {key(2)}\nmatch {key(9)}\n")


def profiles(**columns: list[str | None]) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    empty = {kind: [None] * height for kind in contacts.KINDS}
    return pl.DataFrame({**empty, **columns}, schema=dict.fromkeys(contacts.KINDS, pl.String))


def test_every_mistake_of_a_keys_file_is_told_and_no_value() -> None:
    """By line, keys that stand where an id belongs included."""
    text = f"1 {key(1)}\n{key(3)} 2\n3 c2hvcnQ=\n4 {key(1)}\n1 {key(5)}\nmatch\nmatch %%%\n0 {key(6)}"
    document: dict[str, Any] = {"personal_data": {"keys": text}, "sources": []}
    with pytest.raises(Misconfigured) as caught:
        config.parse(document)
    said = str(caught.value)
    assert "personal_data.keys" in said
    for number, words in ((2, "neither"), (3, "32 bytes"), (4, "another line"), (5, "id"), (6, "neither"), (7, "32 b")):
        assert any(f"line {number}" in part and words in part for part in said.split(";")), number
    assert "line 8" in said
    assert not any(secret in said for secret in (key(1), key(3), key(5), "c2hvcnQ", "%%%"))


@pytest.mark.parametrize("text", ["", "# nothing", f"1 {key(1)}", f"match {key(1)}", f"match {key(1)}\nmatch {key(2)}"])
def test_a_keys_file_has_a_key_and_one_match_key(text: str) -> None:
    """Neither alone is of use."""
    with pytest.raises(ValueError, match="at least one line"):
        contacts.parse(text)


def test_keys_show_no_secret() -> None:
    """Not in a traceback's locals either."""
    shown = repr(BOTH)
    assert not any(text in shown for text in (key(1), key(9), repr(bytes([1]) * 32)[2:20]))


@given(text=st.text(min_size=1), kind=st.sampled_from(contacts.KINDS))
def test_what_is_encrypted_comes_back_and_equal_contacts_are_equal_texts(text: str, kind: str) -> None:
    """Also after the key is not the newest any more."""
    sealed, match = contacts.sealed(text, "kaasino", kind, OLD)
    assert sealed is not None
    assert (sealed, match) == contacts.sealed(text, "kaasino", kind, OLD)
    assert contacts.opened({kind: sealed}, "kaasino", BOTH) == {kind: text}
    newer, same = contacts.sealed(text, "kaasino", kind, BOTH)
    assert (newer != sealed, same, newer is not None and newer.startswith("enc:v1:2:")) == (True, match, True)


@given(one=st.text(min_size=1), other=st.text(min_size=1))
def test_two_contacts_never_share_a_nonce(one: str, other: str) -> None:
    """GCM with one nonce for two plaintexts would tell both."""
    nonces = {base64.b64decode(OLD.seal("kaasino", "email", text).rsplit(":", 1)[1])[:12] for text in (one, other)}
    assert len(nonces) == len({one, other})


@pytest.mark.parametrize(("tenant", "kind"), [("other", "email"), ("kaasino", "phone")])
def test_a_ciphertext_is_bound_to_tenant_and_kind(tenant: str, kind: str) -> None:
    """Moved to another row's place it can't be read."""
    sealed = OLD.seal("kaasino", "email", "ana@example.com")
    with pytest.raises(Halted, match="can't be decrypted"):
        contacts.opened({kind: sealed}, tenant, OLD)
    assert OLD.digest("kaasino", "email", "a") != OLD.digest(tenant, kind, "a")


def test_a_missing_key_is_named() -> None:
    """By its id, with what to do; without any keys too."""
    sealed = BOTH.seal("kaasino", "email", "ana@example.com")
    with pytest.raises(Halted, match="key 2, which is not known"):
        contacts.opened({"email": sealed}, "kaasino", OLD)
    with pytest.raises(Halted, match="not set"):
        contacts.opened({"email": sealed}, "kaasino", None)


@pytest.mark.parametrize("keys", [None, OLD])
@pytest.mark.parametrize(
    "text", ["enc:v1:1:AAAA", "enc:v0:x", "enc:v2:", "enc:v1:7:QUJD@example.com", "U2FsdGVkX18+34600000000abcd=="]
)
def test_a_text_that_only_looks_encrypted_comes_out_as_it_went_in(keys: contacts.Keys | None, text: str) -> None:
    """Whatever a source writes: it can't make us look for a key."""
    for kind in contacts.KINDS:
        staged = contacts.staged(profiles(**{kind: [text]}), "kaasino", keys)
        assert contacts.opened(staged.to_dicts()[0], "kaasino", keys)[kind] == text


@pytest.mark.parametrize("keys", [None, OLD])
def test_a_contact_is_found_by_what_is_alike_in_it(keys: contacts.Keys | None) -> None:
    """An address in any case, a number in E.164; no ciphertext of the operator's, and nothing that fits no index."""
    emails = ["Ana@Example.com", "ana@example.COM", "bo@example.com", "c2VjcmV0", f"{'x' * 600}@example.com", None]
    phones = ["+34600000000", "+34600000000", "+34600000001", "Q0lQSEVSVEVYVCsrKysr", None, None]
    found = contacts.staged(profiles(email=emails, phone=phones), "kaasino", keys)
    for column in ("email_match", "phone_match"):
        one, other, third, *rest = found[column]
        assert one == other != third
        assert one is not None
        assert set(rest) == {None}
    if keys is not None:
        assert not {"@", "+34600"} & {
            part for row in found.rows() for text in row for part in ("@", "+34600") if text and part in text
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+34600000000", False),
        ("0034 600 000 000", False),
        ("tel:+34-600-000-000-ext-1234", False),
        ("call me", False),
        ("notaphonenumberatallreally", False),
        ("1234567890123456789012", False),
        ("U2FsdGVkX1+34600000000Zm9vYmFy==", True),
        ("5f3a9c0d1e2b4a6f8c7d9e0f1a2b3c4d", True),
        ("vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==", True),
        ("abcdefghiJKLMNOPqrstuv==", True),
        ("ana.maria.1234567890@example.com", False),
    ],
)
def test_a_ciphertext_is_told_from_a_phone_number(text: str, expected: bool) -> None:
    """One long word with letters in it that no number has."""
    assert contacts.opaque(text) is expected


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ana@example.com", "a***@e***.com"),
        ("a@b", "a***@b***"),
        ("@", "***@***"),
        ("+34600000001", "+34******01"),
        ("Ana", "A***"),
        ("c2VjcmV0", "c***"),
        ("", "***"),
    ],
)
def test_a_mask_tells_two_apart_and_nobody_who_it_is(text: str, masked: str) -> None:
    assert contacts.mask(text) == masked


def test_a_document_is_hidden_by_names_and_by_what_looks_like_a_contact() -> None:
    """At any depth; ids that are needed are kept, and everything else stays as it is."""
    document = {
        "attributes": {"email": "ana@example.com", "phone": "+34600000001", "country": "ES", "n": 1.10},
        "note": "write to ana@example.com, or call +34600000001!",
        "email": None,
        "user": "ana@example.com",
        "list": [{"phone": "12"}, "+346000000019999999"],
    }
    assert json.loads(contacts.hidden(json.dumps(document), contacts.KINDS, keep=("user",))) == {
        "attributes": {"email": "a***@e***.com", "phone": "+34******01", "country": "ES", "n": 1.10},
        "note": "write to a***@e***.com, or call +34******01!",
        "email": None,
        "user": "ana@example.com",
        "list": [{"phone": "1***"}, "+346000000019999999"],
    }


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('invalid input syntax for type json: "{Ana: 1}"', "invalid input syntax for type json: ..."),
        ("Incorrect datetime value: 'Ana' for column 'born' at row 1", "Incorrect datetime value: ... at row 1"),
        ('relation "crm.players" does not exist', 'relation "crm.players" does not exist'),
        ("ana@example.com is not valid", "a***@e***.com is not valid"),
    ],
)
def test_a_message_is_told_without_values(said: str, kept: str) -> None:
    """Names of tables and columns stay, as far as they stand apart from values."""
    assert contacts.told(said) == kept


def test_nobody_commits_a_page_without_the_keys() -> None:
    """A caller that forgot them would write contacts in plain."""
    forgetful = []
    for module in sorted((ROOT / "connector").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "commit":
                forgetful += [] if "keys" in {word.arg for word in node.keywords} else [f"{module}:{node.lineno}"]
    assert forgetful == []
