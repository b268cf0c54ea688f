"""Which addresses are reached: judged on real sockets where a name or a form of writing could deceive."""

import asyncio
import socket

import aiohttp
import pytest

from apps.core.reach import Forbidden, address_fault, guarded_socket, places_of

NEVER = (
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "not an address",
)
OWN = ("127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "64:ff9b::7f00:1")
FINE = (
    "8.8.8.8",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "fd00::1",
    "2606:4700::1111",
    "::ffff:10.0.0.1",
    "64:ff9b:1::a00:1",
)


@pytest.mark.parametrize("address", NEVER)
def test_link_local_and_metadata_addresses_are_never_reached(address):
    assert address_fault(address, allow_loopback=False)
    assert address_fault(address, allow_loopback=True)


@pytest.mark.parametrize("address", OWN)
def test_our_own_machine_is_reached_only_where_it_is_allowed(address):
    assert "PROBE_ALLOW_LOOPBACK" in address_fault(address, allow_loopback=False)
    assert address_fault(address, allow_loopback=True) == ""


@pytest.mark.parametrize("address", FINE)
def test_public_and_private_networks_are_reached(address):
    assert address_fault(address, allow_loopback=False) == ""


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0", "localhost", "[::ffff:127.0.0.1]"]
)
def test_no_way_to_write_an_address_gets_past_the_guard(host):
    async def ask() -> None:
        connector = aiohttp.TCPConnector(socket_factory=guarded_socket(allow_loopback=False))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://{host}:9/"):
            raise AssertionError("it was asked")

    with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)) as refused:
        asyncio.run(ask())
    # aiohttp refuses what only looks like an address itself, and the system need not know every such form.
    known = not isinstance(refused.value, aiohttp.InvalidURL | aiohttp.ClientConnectorDNSError)
    assert not known or isinstance(refused.value.os_error, Forbidden)


def test_the_address_that_is_connected_to_is_the_one_that_was_judged():
    """A name that first leads somewhere harmless and then to us: what counts is where the socket goes."""

    class Rebinding(aiohttp.abc.AbstractResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

        async def close(self) -> None:
            pass

    async def ask() -> None:
        connector = aiohttp.TCPConnector(resolver=Rebinding(), socket_factory=guarded_socket(allow_loopback=False))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://shop.example/"):
            raise AssertionError("it was asked")

    with pytest.raises(aiohttp.ClientConnectorError) as refused:
        asyncio.run(ask())
    assert isinstance(refused.value.os_error, Forbidden)


def test_one_place_may_be_let_through_and_no_other_port_of_it():
    make = guarded_socket(allow_loopback=False, always=places_of("http://127.0.0.1:80/x"))
    make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))).close()
    with pytest.raises(Forbidden):
        make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 81)))


def test_a_web_address_leads_to_its_port_or_the_usual_one():
    assert places_of("http://127.0.0.1:8000") == {("127.0.0.1", 8000)}
    assert places_of("https://[::1]") == {("::1", 443)}
    assert places_of("http://no-such-host.invalid") == frozenset()
