import json
import os
import random

import pytest

from apps.core import keys
from apps.core.errors import Invalid, KeyUnknown, Tampered
from apps.core.keys import Keyring, new_keyset, open_protected, sealed_with

PASSPHRASE = "five random words make sense"


@pytest.fixture(scope="module")
def protected() -> tuple[Keyring, str]:
    """Made once: it takes half a second."""
    keyring = Keyring(Keyring(new_keyset()).rotated())
    return keyring, keyring.protected(PASSPHRASE)


def test_what_is_sealed_unseals_with_the_same_context_only() -> None:
    keyring = Keyring(new_keyset())
    sealed = keyring.seal(b"mysql://u:p@h/d", context=b"database 1")
    assert b"mysql" not in sealed
    assert keyring.unseal(sealed, context=b"database 1") == b"mysql://u:p@h/d"
    with pytest.raises(Tampered, match="belongs to something else"):
        keyring.unseal(sealed, context=b"database 2")


@pytest.mark.parametrize("plaintext", [b"", b"\0", os.urandom(100_000)])
def test_any_plaintext_comes_back(plaintext: bytes) -> None:
    keyring = Keyring(new_keyset())
    assert keyring.unseal(keyring.seal(plaintext, context=b""), context=b"") == plaintext


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    keyring = Keyring(new_keyset())
    sealed = keyring.seal(b"short", context=b"c")
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Tampered, KeyUnknown)):
            keyring.unseal(bytes(altered), context=b"c")
    for length in range(len(sealed)):
        with pytest.raises(Tampered):
            keyring.unseal(sealed[:length], context=b"c")
    with pytest.raises(Tampered):
        keyring.unseal(sealed + b"\0", context=b"c")


def test_another_keyset_is_named_as_the_cause() -> None:
    mine, other = Keyring(new_keyset()), Keyring(new_keyset())
    with pytest.raises(KeyUnknown, match=rf"key {mine.key_id}, .* only {other.key_id}\. Use the keyset"):
        other.unseal(mine.seal(b"x", context=b""), context=b"")


def test_a_rotated_keyset_seals_with_its_new_key_and_unseals_what_the_old_one_sealed() -> None:
    before = Keyring(new_keyset())
    old = before.seal(b"x", context=b"c")
    after = Keyring(Keyring(before.rotated()).rotated())
    assert len(set(after.key_ids)) == 3
    assert after.key_ids[0] == before.key_id != after.key_id == after.key_ids[-1]
    assert after.unseal(old, context=b"c") == b"x"
    new = after.seal(b"x", context=b"c")
    assert (sealed_with(old), sealed_with(new)) == (before.key_id, after.key_id)
    with pytest.raises(KeyUnknown):
        before.unseal(new, context=b"c")


def test_equal_seeds_make_no_equal_keys() -> None:
    random.seed(7)
    first = Keyring(new_keyset())
    random.seed(7)
    assert Keyring(new_keyset()).key_id != first.key_id


def test_a_keyring_shows_no_key() -> None:
    text = new_keyset()
    value = json.loads(text)["key"][0]["keyData"]["value"]
    keyring = Keyring(text)
    assert value not in repr(keyring)
    assert keyring.key_id in repr(keyring)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "null",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text[:-4],
        lambda text: text.replace("AesGcmKey", "NoSuchKey"),
        lambda text: text.replace("ENABLED", "DISABLED"),
        lambda text: text.replace('"primaryKeyId": ', '"primaryKeyId": 1'),
        lambda text: text.replace("TINK", "RAW"),
        lambda text: text.replace('"value": "', '"value": "AAAA'),
    ],
)
def test_a_malformed_keyset_is_refused_without_showing_it(damage) -> None:
    text = new_keyset()
    value = json.loads(text)["key"][0]["keyData"]["value"]
    with pytest.raises(Invalid, match="keyset is not valid") as caught:
        Keyring(damage(text))
    assert value not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_protected_keyset_opens_with_its_passphrase(protected: tuple[Keyring, str]) -> None:
    keyring, text = protected
    opened = open_protected(text, PASSPHRASE)
    assert opened.key_ids == keyring.key_ids
    assert opened.unseal(keyring.seal(b"x", context=b"c"), context=b"c") == b"x"


def test_the_protected_keyset_holds_no_key_in_the_clear(protected: tuple[Keyring, str]) -> None:
    keyring, text = protected
    for key in keyring._keyset["key"]:
        assert key["keyData"]["value"] not in text


def test_a_wrong_passphrase_or_an_altered_file_opens_nothing(protected: tuple[Keyring, str]) -> None:
    _, text = protected
    with pytest.raises(Tampered, match="passphrase is wrong"):
        open_protected(text, PASSPHRASE + " ")
    document = json.loads(text)
    document["scrypt"]["salt"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(Tampered, match="passphrase is wrong"):
        open_protected(json.dumps(document), PASSPHRASE)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": "pulsewatch protected keyset 1"}', new_keyset()])
def test_another_file_is_not_taken_for_a_protected_keyset(text: str) -> None:
    with pytest.raises(Invalid, match="no protected keyset"):
        open_protected(text, PASSPHRASE)


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(Invalid, match="at least 12") as caught:
        Keyring(new_keyset()).protected("x" * (keys.MIN_PASSPHRASE - 1))
    assert caught.value.field == "passphrase"
