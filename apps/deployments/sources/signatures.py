"""Whether a delivery comes from who it says: HMAC-SHA256 over the raw body, before anything of it is read."""

import hashlib
import hmac

HEADER = "X-Hub-Signature-256"
_PREFIX = "sha256="


class Check:
    """Takes a body in piece by piece and says whether a signature is its own."""

    def __init__(self, secret: str) -> None:
        self._known = bool(secret)
        self._hmac = hmac.new(secret.encode(errors="surrogateescape"), digestmod=hashlib.sha256)

    def update(self, piece: bytes) -> None:
        self._hmac.update(piece)

    def signature(self) -> str:
        """What GitHub would send with the body so far."""
        return _PREFIX + self._hmac.hexdigest()

    def matches(self, signature: str) -> bool:
        """Compared in constant time. Nothing matches an empty secret: everybody knows it."""
        return self._known and hmac.compare_digest(self.signature().encode(), signature.encode(errors="surrogatepass"))
