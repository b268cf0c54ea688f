"""A connection to a Redis at an address that was judged, under the name it has to prove."""

import asyncio
import socket
from typing import Any

import redis.asyncio
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from apps.inventory.addresses import Address


class _Bounded(asyncio.StreamReader):
    """Reads so many bytes and no more, however large an answer the server announces."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def feed_data(self, data: Any) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.set_exception(ConnectionError("the answer is larger than any"))
        else:
            super().feed_data(data)


class _Judged(Connection):
    """Connects to `place`, an IP address; `host` is only its name."""

    def __init__(self, *, place: str, most: int, **options: Any) -> None:
        self._place, self._most = place, most
        super().__init__(**options)

    def _secured(self) -> dict[str, Any]:
        return {}

    async def _connect(self) -> None:
        loop, reader = asyncio.get_running_loop(), _Bounded(self._most)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(lambda: protocol, self._place, self.port, **self._secured())
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _JudgedOverTls(_Judged, SSLConnection):
    """The same over TLS: the certificate is compared with the name, not with the address."""

    def _secured(self) -> dict[str, Any]:
        return {"ssl": self.ssl_context.get(), "server_hostname": self.host}


def client_of(address: Address, place: str, *, most: int) -> "redis.asyncio.Redis":
    """A client with one connection, which reads at most `most` bytes."""
    encrypted = "tls" in address.options
    authorities: dict[str, Any] = {"ssl_ca_certs": address.options.get("ssl_ca")} if encrypted else {}
    pool = ConnectionPool(
        connection_class=_JudgedOverTls if encrypted else _Judged,
        place=place,
        most=most,
        host=address.host,
        port=address.port,
        db=int(address.database),
        username=address.user or None,
        password=address.password or None,
        retry=Retry(NoBackoff(), 0),
        **authorities,
    )
    client = redis.asyncio.Redis(connection_pool=pool, single_connection_client=True)
    client.auto_close_connection_pool = True  # the pool is the client's own
    return client
