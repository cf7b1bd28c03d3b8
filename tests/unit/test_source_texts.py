"""Bytes that are no text: carried so that they can be written back, and never two values under one text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from connector.sources.dialect import bytes_of, text_of

#: Bytes as sources hold them: text, latin1, halves of characters, the very characters that carry bytes.
raws = st.lists(
    st.binary(max_size=4) | st.text(max_size=4).map(str.encode) | st.characters(min_codepoint=0x10F6FE).map(str.encode),
    max_size=6,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(raws)
def test_bytes_come_back_as_they_were(raw: bytes) -> None:
    """Whatever a source holds becomes a text that every store takes, and is found again by it."""
    text = text_of(raw)
    assert bytes_of(text) == raw
    assert "\0" not in text
    assert text.encode().decode() == text


@settings(max_examples=200, deadline=None)
@given(st.text().filter(lambda text: not any(char == "\0" or 0x10F700 <= ord(char) <= 0x10F7FF for char in text)))
def test_a_text_is_itself(text: str) -> None:
    """Only what is no text is written otherwise."""
    assert text_of(text.encode()) == text
    assert bytes_of(text) == text.encode()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Jos\xe9", "Jos\U0010f7e9"),
        (b"a\0b", "a\U0010f700b"),
        (b"\xed\xa0\x80", "\U0010f7ed\U0010f7a0\U0010f780"),
        ("\U0010f7e9".encode(), "\U0010f7f4\U0010f78f\U0010f79f\U0010f7a9"),
    ],
)
def test_what_carries_a_byte(raw: bytes, text: str) -> None:
    """One private-use character a byte; such a character in the source is carried byte by byte itself."""
    assert text_of(raw) == text
