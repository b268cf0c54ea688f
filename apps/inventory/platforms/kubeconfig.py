"""Where a Kubernetes API server is and how we sign in: a kubeconfig, a token, or the account of the pod we run in.

A kubeconfig is typed in by whoever may edit a workload, and read on a worker. It may name programs to run and files to
read there, which would run and send away what that person may not even see: only what stands in it as text is used.
"""

import base64
import os
import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from apps.core.redaction import register_secret
from apps.inventory.platforms.base import PlatformError, SettingsInvalid
from apps.inventory.platforms.fields import MAX_URL, SECRET, SETTINGS
from apps.inventory.platforms.transport import Route
from apps.inventory.rules import http_url_fault

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes puts a pod's token
AS_JSON = "kubectl config view --raw --minify --flatten -o json"
MAX_DEPTH = 20  # of a kubeconfig: its extensions may hold anything, but nobody's are deeper
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ELSEWHERE = {  # what a kubeconfig may hold that is not the thing itself → what to do instead
    "exec": "names a program to run",
    "auth-provider": "names a program to run",
    "tokenFile": "names a file",
    "client-certificate": "names a file",
    "client-key": "names a file",
    "certificate-authority": "names a file",
    "insecure-skip-tls-verify": "switches the check of the certificate off",
    "proxy-url": "names a proxy",
    "username": "names a user with a password, which Kubernetes no longer takes",
    "password": "names a user with a password, which Kubernetes no longer takes",
    "as": "acts for somebody else",
}


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and our way in."""

    server: str  # without a slash at its end
    token: str = field(repr=False)  # empty: a client certificate in the route
    route: Route = field(repr=False)


def from_token(server: str, ca: str, token: str) -> Access:
    """The `ca` is PEM text; empty: the system's authorities. Raises SettingsInvalid."""
    try:
        context = ssl.create_default_context(cadata=ca) if ca else None
    except (ssl.SSLError, ValueError):
        raise SettingsInvalid(
            "Platform kubernetes: setting ca must be the PEM text of the API server's authority.", field=SETTINGS
        ) from None
    return Access(server.rstrip("/"), token, Route(tls=context))


def from_pod() -> Access:
    """The account of the pod this runs in, read anew each time: Kubernetes replaces its token. Raises PlatformError."""
    # The token is not registered as a secret, where one an hour would pile up: an echo of it is cut out by its value.
    name, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    try:
        token = (ACCOUNT / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    except (OSError, ValueError):
        name = ""
    if not name or not port:
        raise PlatformError(
            "This worker runs in no pod of Kubernetes with a service account: enter a kubeconfig or a token as the "
            "platform secret."
        )
    return Access(f"https://{f'[{name}]' if ':' in name else name}:{port}", token, Route(tls=context))


def is_kubeconfig(secret: str) -> bool:
    """Whether a secret is a document and not a token."""
    return secret.startswith("{") or re.search(r"\s", secret) is not None


def from_kubeconfig(text: str, context: str) -> Access:
    """`context` empty: the current one. Raises SettingsInvalid, which repeats nothing of the text but names."""
    config = _document(text)
    chosen = _part(config, "contexts", "context", context or _text(config, "current-context"))
    cluster = _part(config, "clusters", "cluster", _text(chosen, "cluster"))
    user = _part(config, "users", "user", _text(chosen, "user"))
    for part in (cluster, user):
        for name, does in _ELSEWHERE.items():
            if part.get(name):
                raise _wrong(f"{name} {does}, which Pulsewatch does not follow")
    server, token = _text(cluster, "server").rstrip("/"), _text(user, "token")
    if fault := http_url_fault(server) if len(server) <= MAX_URL else "It is too long.":
        raise _wrong(f"its server is no usable address. {fault.rstrip('.')}")
    certificate, key = _pem(user, "client-certificate-data"), _pem(user, "client-key-data")
    if not token and not (certificate and key):
        raise _wrong("its user has neither a token nor a client certificate with its key")
    register_secret(token)
    return Access(server, token, Route(tls=_context(_pem(cluster, "certificate-authority-data"), certificate, key)))


def tls_context(ca: str, pair: str) -> ssl.SSLContext:
    """Trusts the authorities in `ca` (empty: the system's) and shows the certificate with its key in `pair`, if any.

    Raises ssl.SSLError, ValueError or OSError for what is no PEM text of these.
    """
    context = ssl.create_default_context(cadata=ca or None)
    if pair:
        # The ssl module takes a key from a file only; this one is readable by us alone and gone at once.
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(pair)
            file.flush()
            context.load_cert_chain(file.name, password="")
    return context


def _context(ca: str, certificate: str, key: str) -> ssl.SSLContext | None:
    if not ca and not certificate:
        return None
    try:
        return tls_context(ca, f"{certificate}\n{key}" if certificate else "")
    except (ssl.SSLError, ValueError, OSError):
        raise _wrong("its certificates or its key are damaged") from None


def _document(text: str) -> Mapping[str, Any]:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError
        config = yaml.load(text, Loader=_LOADER)  # noqa: S506  (a safe one: it builds plain values only)
    except (yaml.YAMLError, ValueError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("clusters"), list):
        raise _wrong(f"it cannot be read; take what `{AS_JSON}` prints")
    return config


def _part(config: Mapping[str, Any], group: str, item: str, name: str) -> Mapping[str, Any]:
    found = config.get(group)
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(item), dict):
            return dict(entry[item])
    raise _wrong(f"it has no {item} {name[:60]!r}" if name else f"it names no {item}")


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    return value if isinstance(value, str) else ""


def _pem(part: Mapping[str, Any], name: str) -> str:
    try:
        return base64.b64decode(_text(part, name), validate=True).decode("ascii")
    except ValueError:
        raise _wrong(f"its {name} is no base64 of a PEM text") from None


def _wrong(problem: str) -> SettingsInvalid:
    return SettingsInvalid(f"The kubeconfig cannot be used: {problem}.", field=SECRET)
