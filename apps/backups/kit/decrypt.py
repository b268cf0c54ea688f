"""Decrypt a Pulsewatch backup without Pulsewatch. Needs Python 3.11 or newer, tink and zstandard.

    python decrypt.py OBJECT SIDECAR KEYSET --out FILE

It checks the sidecar's seal, every segment of the object, its length and SHA-256, and the checksum of the compressed
dump. FILE appears only when all of that is right. `--out -` writes to standard output, once the length and the SHA-256
are known to be right.
The exit status is 0 then, and 1 with one sentence when something is wrong.
"""

import argparse
import base64
import getpass
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import tink
    import zstandard
    from tink import aead, secret_key_access, streaming_aead
except ImportError as error:
    sys.exit(f"{error.name} is missing. Install it with: pip install tink zstandard")

SIDECAR_FORMAT = 1
SIDECAR_CONTEXT = b"pulsewatch sidecar\n"
OBJECT_CONTEXT = "pulsewatch backup 1"
KEYSET_FORMAT = "pulsewatch protected keyset 1"
AES_GCM = "type.googleapis.com/google.crypto.tink.AesGcmKey"
AES_GCM_PREFIX = b"\x1a\x20"  # protobuf: field 3, 32 bytes: a key of AES-256
SCRYPT = {"n": 2**17, "r": 8, "p": 1}
SCRYPT_MEMORY = 256 * 2**20  # bytes
BLOCK = 2**20  # bytes read at once
PIECE = 1024  # bytes decompressed at once: 32 MiB come out of them at most
GZIP_WINDOW = 31  # zlib's number for gzip


class Failure(Exception):
    """Something is wrong; the text says what, and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Decrypt a Pulsewatch backup.")
    parser.add_argument("object", type=Path, help="the backup: ….zst.enc or ….gz.enc")
    parser.add_argument("sidecar", type=Path, help="its sidecar: ….json")
    parser.add_argument("keyset", type=Path, help="keyset.json of the recovery kit")
    parser.add_argument("--out", required=True, help="the file to write, or - for standard output")
    parser.add_argument("--passphrase-file", type=Path, help="a file with the passphrase, else it is asked for")
    asked = parser.parse_args()
    try:
        aead.register()
        streaming_aead.register()
        if asked.out != "-" and Path(asked.out).exists():
            raise Failure(f"{asked.out} is already there. Name another file.")
        keys = open_keyset(asked.keyset, passphrase(asked.passphrase_file))
        backup = open_sidecar(asked.sidecar, keys)
        if asked.out == "-":
            decrypt(asked.object, backup, keys, sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
        else:
            write_file(Path(asked.out), asked.object, backup, keys)
    except Failure as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except OSError as error:
        sys.exit(f"{error.filename or 'A file'} cannot be used: {error.strerror}.")


def passphrase(file: Path | None) -> str:
    if file is None:
        return getpass.getpass("Passphrase of the recovery kit: ")
    return file.read_text(encoding="utf-8").rstrip("\r\n")


def open_keyset(path: Path, phrase: str) -> aead.Aead:
    """The keys in keyset.json."""
    try:
        document = json.loads(path.read_bytes())
        salt = base64.b64decode(document["scrypt"]["salt"], validate=True)
        sealed = base64.b64decode(document["aes_256_gcm"], validate=True)
        if document["format"] != KEYSET_FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path} is no keyset of a recovery kit. Give the file keyset.json.") from None
    raw = hashlib.scrypt(phrase.encode(), salt=salt, **SCRYPT, maxmem=SCRYPT_MEMORY, dklen=32)
    value = base64.b64encode(AES_GCM_PREFIX + raw).decode()
    data = {"typeUrl": AES_GCM, "value": value, "keyMaterialType": "SYMMETRIC"}
    key = {"keyData": data, "status": "ENABLED", "keyId": 1, "outputPrefixType": "RAW"}
    lock = parse(json.dumps({"primaryKeyId": 1, "key": [key]})).primitive(aead.Aead)
    try:
        keyset = lock.decrypt(sealed, KEYSET_FORMAT.encode())
    except tink.TinkError:
        raise Failure("The passphrase is wrong, or the keyset was altered. Try again, then another copy.") from None
    return parse(keyset.decode()).primitive(aead.Aead)


def parse(keyset: str) -> tink.KeysetHandle:
    return tink.json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN)


def open_sidecar(path: Path, keys: aead.Aead) -> dict[str, Any]:
    """What the sidecar says of the backup, when its seal fits."""
    try:
        document = json.loads(path.read_bytes())
        backup: dict[str, Any] = document["backup"]
        seal = base64.b64decode(document["seal"], validate=True)
        canonical = json.dumps(backup, sort_keys=True, separators=(",", ":")).encode()
        keys.decrypt(seal, SIDECAR_CONTEXT + canonical)
    except (ValueError, KeyError, TypeError, tink.TinkError):
        raise Failure(
            f"{path} is no sidecar, was altered, or was sealed with keys this kit does not hold. "
            "Use another copy of it, or the kit that was exported after its keys were made."
        ) from None
    if backup["format_version"] != SIDECAR_FORMAT:
        raise Failure(f"{path} was written by a newer Pulsewatch. Use the decrypt.py of a newer kit.")
    return backup


def write_file(out: Path, source: Path, backup: dict[str, Any], keys: aead.Aead) -> None:
    """Write the dump under another name, and give it its own when all is right."""
    part = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            decrypt(source, backup, keys, file.write)
            file.flush()
            os.fsync(file.fileno())
        part.rename(out)
    finally:
        part.unlink(missing_ok=True)


def decrypt(path: Path, backup: dict[str, Any], keys: aead.Aead, write: Callable[[bytes], object]) -> None:
    """Decrypt and decompress all of the object, with every check there is."""
    words = [OBJECT_CONTEXT, backup["backup_id"], backup["source"], backup["format"], backup["compression"]]
    context = json.dumps(words, separators=(",", ":")).encode()
    try:
        data_key = keys.decrypt(base64.b64decode(backup["wrapped_key"]), context)
    except tink.TinkError:
        raise Failure("This kit does not hold the key of this backup. Use the kit exported after that.") from None
    check_whole(path, backup)
    handle = tink.proto_keyset_format.parse(data_key, secret_key_access.TOKEN)
    inflate = decompressor(backup["compression"])
    plain = 0
    with path.open("rb") as source:
        stream = handle.primitive(streaming_aead.StreamingAead).new_decrypting_stream(source, context)
        try:
            while block := stream.read(BLOCK):
                for begin in range(0, len(block), PIECE):
                    if inflate.eof:
                        raise Failure(f"{path} has data behind the end of the dump. Use another backup.")
                    data = inflate.decompress(block[begin : begin + PIECE])
                    plain += len(data)
                    write(data)
        except (tink.TinkError, zstandard.ZstdError, zlib.error):
            raise Failure(f"{path} was altered or belongs to another backup. Use another copy of it.") from None
    if not inflate.eof or inflate.unused_data or plain != backup["plain_bytes"]:
        raise Failure(f"{path} does not hold the whole dump. Use another backup.")


def check_whole(path: Path, backup: dict[str, Any]) -> None:
    """Length and digest first: nothing is written of an object that is not the one the sidecar describes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
    if size != backup["stored_bytes"]:
        raise Failure(f"{path} has {size} bytes instead of {backup['stored_bytes']}. Use another copy of it.")
    if digest.hexdigest() != backup["sha256"]:
        raise Failure(f"{path} was altered or belongs to another backup: its SHA-256 differs. Use another copy of it.")


def decompressor(compression: str) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(wbits=GZIP_WINDOW)
    return zstandard.ZstdDecompressor().decompressobj()


if __name__ == "__main__":
    main()
