"""Runs alone, as a script: reads one question as JSON from standard input, answers it as JSON on standard output.

Knows nothing of Pulsewatch but which addresses it may reach. Ends by SIGALRM when it takes longer than the question
allows.
"""

import json
import logging
import os
import resource
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MEMORY = 2**30  # bytes of address space: an answer without end must not take the machine's
CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")  # as Python's audit hooks call it
KINDS = {"critical": "failure", "warning": "warning", "info": "info", "ok": "success"}


class Last(logging.Handler):
    """Keeps the last complaint of the library: the reason why nothing was sent."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


refused: list[str] = []  # why an address was not reached


def guard(*, allow_loopback: bool) -> None:
    """Refuse link-local and metadata addresses to whatever connects, by whichever library, and this machine's own.

    A proxy is reached wherever it is, for whoever runs Pulsewatch has set it. What is behind it, it judges itself.
    """
    sys.path.append(str(Path(__file__).parents[3]))
    from apps.core.reach import Forbidden, address_fault, places_of

    proxies = urllib.request.getproxies()
    always = {place for kind, url in proxies.items() if kind != "no" for place in places_of(url)}

    def judge(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CONNECTS or not isinstance(arguments[1], tuple):
            return
        # A library mostly connects to the address it has found; some leave a name to the socket.
        host, port, *_ = arguments[1]
        for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
            if (place[0], port) in always:
                continue
            if fault := address_fault(str(place[0]), allow_loopback=allow_loopback, setting="ALERT_ALLOW_LOOPBACK"):
                refused.append(f"It leads to an address that {fault}.")
                raise Forbidden(fault)

    sys.addaudithook(judge)


def apprise_answer(question: dict[str, Any]) -> dict[str, Any]:
    """Check an address, or send to it."""
    import apprise  # takes most of a second, and a call needs none of it

    last = Last()
    logging.getLogger("apprise").addHandler(last)
    # Redirected, a message would go where nobody meant it to.
    asset = apprise.AppriseAsset(app_id="Pulsewatch", app_desc="Pulsewatch", http_redirects=False)
    url = question["url"]
    channel = apprise.Apprise.instantiate(url, asset=asset)
    if channel is None or not channel.enabled:
        schema = url.partition("://")[0].lower()
        known = "://" in url and schema in apprise.plugins.N_MGR
        return {
            "ok": False,
            "fault": "incomplete" if known else "unknown",
            "said": "Apprise does not take its address.",
        }
    if question["do"] == "check":
        return {"ok": True, "channel": str(channel.service_name or channel.schema())}
    if "overflow=" not in url:
        channel.overflow_mode = apprise.OverflowMode.TRUNCATE  # a service with short messages gets the beginning
    try:
        sent = channel.notify(
            title=question["title"],
            body=question["body"],
            notify_type=KINDS[question["severity"]],
            body_format=apprise.NotifyFormat.TEXT,
        )
    except OSError as error:  # some services let it pass
        sent, last.said = False, _unreached(error)
    return {"ok": True} if sent else {"ok": False, "said": refused[-1] if refused else last.said}


def call(question: dict[str, Any]) -> dict[str, Any]:
    """GET a web address."""
    request = urllib.request.Request(question["url"], headers={"User-Agent": "Pulsewatch"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=question["seconds"]) as answer:  # noqa: S310  (a setting, http only)
            answer.read(1)
    except urllib.error.HTTPError as error:
        return {"ok": False, "said": f"It answered {error.code}."}
    except (OSError, ValueError) as error:
        return {"ok": False, "said": _unreached(getattr(error, "reason", error))}
    return {"ok": True}


def _unreached(reason: object) -> str:
    return f"It cannot be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})."


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    question = json.load(sys.stdin)
    signal.alarm(question["seconds"])
    # Whatever libraries print goes to standard error: standard output is the answer's.
    out = os.fdopen(os.dup(1), "w")
    guard(allow_loopback=question.get("allow_loopback", False))
    os.dup2(2, 1)
    answer = call(question) if question["do"] == "ping" else apprise_answer(question)
    json.dump(answer, out)
    out.flush()
    os._exit(0)  # whatever threads a service left behind


if __name__ == "__main__":
    main()
