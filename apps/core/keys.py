"""Keys at rest: a Google Tink keyset seals small secrets, such as a database URL or the data key of a backup.

A keyset is JSON text, made by `new_keyset` or by Tink's own tool. Its primary key seals and every key in it unseals, so
what was sealed before a rotation stays readable. What is sealed begins with Tink's 5-byte prefix, which names the key.
"""

import base64
import hashlib
import json
import secrets
from typing import Any

import tink
from google.protobuf.message import Error as ProtobufError
from tink import aead, secret_key_access
from tink.proto import aes_gcm_pb2

from apps.core.errors import Invalid, KeyUnknown, Tampered

aead.register()

KEY_TYPE = "type.googleapis.com/google.crypto.tink.AesGcmKey"
PREFIX_BYTES = 5  # Tink's: one byte for the version, four for the key id
PREFIX_VERSION = 1
MAX_KEY_ID = 2**31 - 1  # what Tink itself stays within

PROTECTED_FORMAT = "pulsewatch protected keyset 1"
# scrypt as of format 1: 128 MiB and half a second for every guess.
SCRYPT_N = 2**17
SCRYPT_R = 8
SCRYPT_P = 1
SCRYPT_MEMORY = 256 * 2**20  # bytes it may use; it needs 128 MiB and a little
SALT_BYTES = 16
PASSPHRASE_KEY_BYTES = 32  # AES-256
MIN_PASSPHRASE = 12  # characters: fewer do not withstand guessing at half a second each


def new_keyset() -> str:
    """A keyset with one new AES-256-GCM key, as JSON text. It is a secret."""
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    keyset = json.loads(tink.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    return _with_new_primary(keyset, keyset["key"].pop())


class Keyring:
    """The keys of one keyset. Raises Invalid when the text is no keyset; the message shows nothing of it."""

    def __init__(self, keyset_json: str) -> None:
        try:
            handle = tink.json_proto_keyset_format.parse(keyset_json, secret_key_access.TOKEN)
            self._aead = handle.primitive(aead.Aead)
            keyset = json.loads(keyset_json)
        except (tink.TinkError, ProtobufError, ValueError, TypeError):
            # The cause may quote the keyset, so it is not passed on.
            raise Invalid(
                "The keyset is not valid: it must be the JSON text of a Tink AEAD keyset, complete and unchanged. "
                "Restore it from where it was kept, or make a new one if nothing was sealed with it yet."
            ) from None
        info = handle.keyset_info()
        if any(key.output_prefix_type != tink.proto.tink_pb2.TINK for key in info.key_info):
            raise Invalid("The keyset is not valid: each of its keys must have the output prefix type TINK.")
        self.text = keyset_json  # a secret
        self._keyset: dict[str, Any] = keyset
        self.key_id = str(info.primary_key_id)
        self.key_ids = tuple(str(key.key_id) for key in info.key_info)

    def __repr__(self) -> str:
        return f"Keyring(key_id={self.key_id})"

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt with the primary key, bound to `context`: only with the same context will it unseal."""
        return bytes(self._aead.encrypt(plaintext, context))

    def unseal(self, blob: bytes, *, context: bytes) -> bytes:
        """What `seal` was given. Raises KeyUnknown when another keyset sealed it, Tampered when it is not authentic."""
        key_id = sealed_with(blob)
        if key_id not in self.key_ids:
            raise KeyUnknown(
                f"This was sealed with key {key_id}, and the keyset has only {', '.join(self.key_ids)}. "
                "Use the keyset it was sealed with."
            )
        try:
            return bytes(self._aead.decrypt(blob, context))
        except tink.TinkError:
            raise Tampered(
                "What was sealed is not authentic: it was altered, cut off, or belongs to something else. "
                "Use an unaltered copy of it."
            ) from None

    def rotated(self) -> str:
        """This keyset with a new primary key, as JSON text. The old keys stay: they unseal what they sealed."""
        return _with_new_primary(self._keyset, json.loads(new_keyset())["key"].pop())

    def protected(self, passphrase: str) -> str:
        """The keyset encrypted under a passphrase, as JSON text that may be kept beside the backups.

        Raises Invalid for a passphrase below MIN_PASSPHRASE characters. Takes half a second and 128 MiB.
        """
        if len(passphrase) < MIN_PASSPHRASE:
            raise Invalid(
                f"The passphrase is too short: use at least {MIN_PASSPHRASE} characters, such as five random words.",
                field="passphrase",
            )
        salt = secrets.token_bytes(SALT_BYTES)
        sealed = _passphrase_aead(passphrase, salt).encrypt(
            json.dumps(self._keyset).encode(), PROTECTED_FORMAT.encode()
        )
        document = {
            "format": PROTECTED_FORMAT,
            "scrypt": {"n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": base64.b64encode(salt).decode()},
            "aes_256_gcm": base64.b64encode(sealed).decode(),
        }
        return json.dumps(document, indent=2) + "\n"


def open_protected(text: str, passphrase: str) -> Keyring:
    """The keyring that `protected` encrypted. Raises Invalid for another file, Tampered for a wrong passphrase."""
    try:
        document = json.loads(text)
        known = document["format"] == PROTECTED_FORMAT
        salt = base64.b64decode(document["scrypt"]["salt"], validate=True)
        sealed = base64.b64decode(document["aes_256_gcm"], validate=True)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise Invalid("This is no protected keyset of Pulsewatch. Give the file keyset.json of a recovery kit.")
    try:
        keyset = _passphrase_aead(passphrase, salt).decrypt(sealed, PROTECTED_FORMAT.encode())
    except tink.TinkError:
        raise Tampered(
            "The passphrase is wrong, or the protected keyset was altered. Try the passphrase again, then another copy."
        ) from None
    return Keyring(bytes(keyset).decode())


def sealed_with(blob: bytes) -> str:
    """The id of the key that sealed this. Raises Tampered when it does not begin as a sealed blob does."""
    if len(blob) < PREFIX_BYTES or blob[0] != PREFIX_VERSION:
        raise Tampered("This was not sealed by Pulsewatch, or its beginning was altered. Use an unaltered copy of it.")
    return str(int.from_bytes(blob[1:PREFIX_BYTES], "big"))


def _with_new_primary(keyset: dict[str, Any], key: dict[str, Any]) -> str:
    # Tink draws ids from Python's seeded generator; two keysets must not share one by an equal seed.
    taken = {known["keyId"] for known in keyset["key"]}
    key_id = next(number for number in iter(lambda: secrets.randbelow(MAX_KEY_ID) + 1, 0) if number not in taken)
    return json.dumps({"primaryKeyId": key_id, "key": [*keyset["key"], {**key, "keyId": key_id}]})


def _passphrase_aead(passphrase: str, salt: bytes) -> aead.Aead:
    raw = hashlib.scrypt(
        passphrase.encode(),
        salt=salt,
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY,
        dklen=PASSPHRASE_KEY_BYTES,
    )
    key = {
        "keyData": {
            "typeUrl": KEY_TYPE,
            "value": base64.b64encode(aes_gcm_pb2.AesGcmKey(key_value=raw).SerializeToString()).decode(),
            "keyMaterialType": "SYMMETRIC",
        },
        "status": "ENABLED",
        "keyId": 1,
        "outputPrefixType": "RAW",
    }
    keyset = json.dumps({"primaryKeyId": 1, "key": [key]})
    return tink.json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(aead.Aead)
