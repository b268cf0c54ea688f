"""Servers that answer so as to hurt whoever asks them."""

import asyncio
import socket

import pytest
from yarl import URL

from apps.health.probers.endpoint import Asker, Target
from apps.health.rules.checks import Answer, Expectation
from tests.health.probers.pretenders import pretender

BROKEN = "broke the connection or answered with something that is not HTTP"
METADATA = "leads to an address that is a link-local or metadata address, which is never asked"
SILENT = "did not answer within 0.5 s"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def told(first: bytes, more: bytes = b"") -> Answer:
    """What becomes of a check whose server begins like this and goes on like that without end."""

    def serve(line: socket.socket) -> None:
        line.recv(65536)
        line.sendall(first)
        while more:
            line.sendall(more)

    async def ask(port: int) -> Answer:
        async with Asker(allow_loopback=True) as asker:
            url, headers = URL(f"http://127.0.0.1:{port}/"), {"X-Key": "sesame"}
            return await asker.ask(Target(url, Expectation(((200, 200),), 10_000), headers=headers, timeout=0.5))

    with pretender(serve) as (port, _):
        answer = asyncio.run(ask(port))
    assert "sesame" not in answer.failure
    return answer


@pytest.mark.parametrize(
    ("first", "more", "failure"),
    [
        (b"hello world\n", b"", BROKEN),  # HTTP/0.9
        (b"HTTP/1.1 200 ", b"x" * 65536, BROKEN),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: bbbbbbbbbbbbbbbbbbbbbb\r\n" * 1000, BROKEN),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"x" * 65536, BROKEN),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, SILENT),
        (CHUNKED, b"0" * 65536, SILENT),
        (CHUNKED + b"0\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000, BROKEN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", b"", BROKEN),
    ],
    ids=["0.9", "status line", "headers", "one header", "continue", "chunk size", "trailers", "negative"],
)
def test_an_answer_that_never_becomes_one_is_given_up(first, more, failure):
    assert told(first, more).failure == failure


def test_what_is_packed_is_not_unpacked():
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    assert told(head).body == b"abc"


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("http://0251.0376.0251.0376/", "leads to something that is no web address"),
        ("http://2852039166/", "leads to something that is no web address"),
        ("http://0xa9fea9fe/", METADATA),
        ("http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", METADATA),
        ("http://shop.example@169.254.169.254/", METADATA),
        ("http://[fe80::1%25lo]/", METADATA),
        ("http://[64:ff9b::a9fe:a9fe]/", METADATA),
        ("http://169.254.169.254\\@shop.example/", BROKEN),
        ("http://a:99999999/", BROKEN),
        ("http://" + "a" * 5000, BROKEN),
    ],
)
def test_no_spelling_of_a_redirect_leads_to_a_metadata_address(place, failure):
    head = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    assert told(head.encode()).failure == failure
