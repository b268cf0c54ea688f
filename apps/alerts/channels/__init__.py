"""Sending a message to an Apprise address, and calling a web address, each in a process of its own.

What listens there may never answer, answer without end, or break the library that talks to it. The process dies by its
own alarm, its memory is bounded, and a worker that waits for it does nothing else meanwhile that others wait for. The
address goes in by a pipe: it is a secret, and command lines and environments are readable.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from apps.core.errors import Invalid, Transient
from apps.core.redaction import PLACEHOLDER, redact

SECONDS = 20  # for one message, connecting included
PING_SECONDS = 10
GRACE = 5.0  # seconds the process has to die of its alarm, which starts when Python has
MAX_URL = 2000  # characters
MAX_SAID = 300
COURIER = Path(__file__).with_name("courier.py")
# What the process is given of our environment: how to reach the network. Secrets of ours are none of its business.
PASSED = re.compile(r"PATH|HOME|LANG|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(http|https|no|all)_proxy", re.I)
_SCHEME = re.compile(r"[a-z][a-z0-9+-]*://", re.IGNORECASE | re.ASCII)
_PARTS = re.compile(r"[^\w.+%~-]+")
SHORTEST_PART = 4  # characters; hiding shorter pieces of an address would garble every sentence


def check(url: str) -> str:
    """What an address belongs to, such as `Slack`. Raises Invalid, which shows nothing of it."""
    if not url.strip():
        raise Invalid("Enter an Apprise address, such as mailto://… or slack://…", field="url")
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        raise Invalid(
            f"An Apprise address is one line of up to {MAX_URL:,} characters without spaces; enter one address for "
            "each route.",
            field="url",
        )
    unknown = Invalid(
        "Apprise knows no such kind of address; look at what stands before :// (docs/alerts.md has examples).",
        field="url",
    )
    if not _SCHEME.match(url):
        raise unknown
    answer = _ask({"do": "check", "url": url}, SECONDS)
    if answer.get("ok"):
        return str(answer.get("channel", ""))
    if answer.get("fault") == "unknown":
        raise unknown
    if answer.get("fault") != "incomplete":
        raise Invalid(f"The address could not be checked: {_without(url, str(answer.get('said')))}", field="url")
    raise Invalid(
        "This kind of address needs more than it says, or says it otherwise: compare it with Apprise's description of "
        "the service.",
        field="url",
    )


def send(url: str, *, title: str, body: str, severity: str, allow_loopback: bool) -> None:
    """Send one message. `severity`: critical, warning, info, or ok for good news. Raises Transient with the reason.

    `allow_loopback`: also to this machine. Link-local and metadata addresses are never reached.
    """
    message = {"title": title, "body": body, "severity": severity, "allow_loopback": allow_loopback}
    answer = _ask({"do": "send", "url": url, **message}, SECONDS)
    if not answer.get("ok"):
        raise Transient(_without(url, str(answer.get("said") or "The message was not accepted, without a reason.")))


def ping(url: str) -> None:
    """`GET` a web address; any answer below 400 will do. Raises Transient with the reason.

    It may be on this machine: it comes from the settings, whose author has the machine anyway.
    """
    answer = _ask({"do": "ping", "url": url, "allow_loopback": True}, PING_SECONDS)
    if not answer.get("ok"):
        raise Transient(_without(url, str(answer.get("said") or "It did not answer.")))


def _ask(question: dict[str, Any], seconds: int) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    try:
        done = subprocess.run(
            # -P: the folder of the script is no place to import from.
            [sys.executable, "-P", "-W", "ignore", str(COURIER)],
            input=json.dumps({**question, "seconds": seconds}).encode(),
            capture_output=True,
            timeout=seconds + GRACE,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"said": f"There was no answer within {seconds} seconds."}
    except OSError as error:
        return {"said": f"No process could be started for it ({error.strerror})."}
    if done.returncode == -signal.SIGALRM:
        return {"said": f"There was no answer within {seconds} seconds."}
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    # Its standard error may quote the address, so nothing of it is shown.
    return {"said": f"The process that sends ended without an answer (status {done.returncode})."}


def _without(url: str, text: str) -> str:
    """What the other side or the library said, without any part of the address: each may be a token."""
    text = " ".join(text.split())
    scheme, _, rest = url.partition("://")
    for form in (rest, unquote(rest)):
        for part in sorted(set(_PARTS.split(form)), key=len, reverse=True):
            if len(part) >= SHORTEST_PART and part.lower() != scheme.lower():
                text = re.sub(re.escape(part), PLACEHOLDER, text, flags=re.IGNORECASE)
    return redact(text)[:MAX_SAID]
