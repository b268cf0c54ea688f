"""Deliveries are genuine or are not read."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments.sources.signatures import Check

SECRET = "It's a Secret to Everybody"


def checked(secret: str, body: bytes) -> Check:
    """A check that has taken the body in two pieces."""
    check = Check(secret)
    check.update(body[: len(body) // 2])
    check.update(body[len(body) // 2 :])
    return check


def signed(secret: str, body: bytes) -> str:
    return checked(secret, body).signature()


def genuine(secret: str, body: bytes, signature: str) -> bool:
    return checked(secret, body).matches(signature)


def test_the_signature_is_githubs():
    # The example of GitHub's documentation on validating deliveries.
    wanted = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

    assert signed(SECRET, b"Hello, World!") == wanted
    assert genuine(SECRET, b"Hello, World!", wanted)


@given(st.binary(max_size=100), st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_fails(body: bytes, place: int, bits: int):
    signature = signed(SECRET, body)
    assert genuine(SECRET, body, signature)
    if body:
        altered = bytearray(body)
        altered[place % len(body)] ^= bits
        assert not genuine(SECRET, bytes(altered), signature)
    broken = bytearray(signature.encode())
    broken[place % len(broken)] ^= bits
    assert not genuine(SECRET, body, broken.decode("latin-1"))


@given(st.text())
def test_no_text_but_the_signature_is_genuine(signature: str):
    assert not genuine(SECRET, b"body", signature)


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_without_a_secret_nothing_is_genuine(body: bytes):
    empty = "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()

    assert not genuine("", body, empty)
