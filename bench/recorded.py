"""A small HTTP server that remembers who was asked when."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from tests.servers import free_port


class Recorded:
    """Answers everything with 200, and keeps the Unix times of the requests by path."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.times: dict[str, list[float]] = defaultdict(list)

    def count(self) -> int:
        """All requests until now."""
        return sum(map(len, list(self.times.values())))

    def gap(self, since: float, until: float) -> float:
        """The longest time between two requests for one path of which the second came between these moments."""
        return max(b - a for times in self.times.values() for a, b in pairwise(times) if since <= b <= until)


class _Answering(asyncio.Protocol):
    def __init__(self, seen: Recorded) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._seen.times[data.split(b" ", 2)[1].decode()].append(time.time())
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self._transport.close()


@contextmanager
def recorded() -> Iterator[Recorded]:
    """The server, in a thread of its own."""
    seen, loop = Recorded(free_port()), asyncio.new_event_loop()
    made = loop.create_server(lambda: _Answering(seen), "127.0.0.1", seen.port, backlog=4096)
    server = loop.run_until_complete(made)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield seen
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(_rest())
        loop.close()


async def _rest() -> None:
    """End what is still being accepted."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
