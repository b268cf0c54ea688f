"""Which addresses requests of our own may reach.

People register URLs, and Pulsewatch asks them from inside the network: without a bound, whoever may add an endpoint
could read the cloud's metadata service through it. The address is judged when the socket for it is made, so a name that
answers differently the second time, an address written as one number, and every hop of a redirect are covered.
"""

import socket
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

# Metadata services outside the link-local ranges: Alibaba's, Oracle's and Azure's; over IPv6 Google's and Scaleway's,
# and all that Amazon has in a network of its own, where pods are given their credentials too.
_METADATA = frozenset(
    map(ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd20:ce::254", "fd00:42::42"))
)
_AMAZON = ip_network("fd00:ec2::/32")
# IPv6 that carries an IPv4 address: translated by the network (NAT64, SIIT), compatible, 6to4 and Teredo.
_LAST_FOUR = (ip_network("64:ff9b::/96"), ip_network("::ffff:0:0:0/96"))
_NAT64_OF_SITES = ip_network("64:ff9b:1::/48")
_PLACES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12))  # bytes of it by the length of a site's prefix (RFC 6052)
_COMPATIBLE = ip_network("::/96")


class Forbidden(OSError):
    """The address is none that may be reached. The text says which kind of address it is, in half a sentence."""


@lru_cache(maxsize=4096)
def address_fault(address: str, *, allow_loopback: bool, setting: str = "PROBE_ALLOW_LOOPBACK") -> str:
    """Why an IP address may not be reached, in half a sentence, or an empty text. `setting` allows the loopback."""
    try:
        number = ip_address(address.partition("%")[0])  # without the interface of a link-local address
    except ValueError:
        return "is no IP address"
    for form in (number, *_carried(number)):
        if not allow_loopback and (form.is_loopback or form.is_unspecified):
            return f"is an address of Pulsewatch's own machine, which only {setting}=true lets it ask"
        if form.is_link_local or form in _METADATA or form in _AMAZON:
            return "is a link-local or metadata address, which is never asked"
        if form.is_multicast or (form.version == 4 and form.is_reserved):
            return "is a multicast or reserved address, which is never asked"
    return ""


def _carried(number: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(number, IPv4Address):
        return ()
    found = [number.ipv4_mapped, number.sixtofour, *(number.teredo or ())]
    of_a_site = number in _NAT64_OF_SITES
    if (
        of_a_site
        or any(number in network for network in _LAST_FOUR)
        or (number in _COMPATIBLE and int(number) > 0xFFFF)
    ):
        found.append(IPv4Address(int(number) & 0xFFFFFFFF))
    if of_a_site:
        # Which length the site has chosen nobody knows here; an address does not begin with 0.
        found += [
            IPv4Address(bytes(number.packed[at] for at in places)) for places in _PLACES if number.packed[places[0]]
        ]
    return tuple(form for form in found if form is not None)


Place = tuple[str, int]  # IP address and port


def guarded_socket(*, allow_loopback: bool, always: frozenset[Place] = frozenset()) -> Callable[[Any], socket.socket]:
    """What makes the sockets of an aiohttp connector (`socket_factory`): raises Forbidden for what may not be reached.

    `always` are places that may be reached nevertheless.
    """

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = info
        fault = address_fault(place[0], allow_loopback=allow_loopback)
        if fault and (place[0], place[1]) not in always:
            raise Forbidden(fault)
        return socket.socket(family, kind, protocol)

    return make


def places_of(url: str) -> frozenset[Place]:
    """Where a web address leads now; nowhere when its name cannot be resolved."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset((str(place[0]), port) for *_, place in found)
