"""Checks of endpoints with everything that is stored of them, against blackbox_exporter asking the same server.

Both make a new connection for each check. blackbox_exporter stores nothing; ours is measured with all it does: loading
the targets, asking, judging, storing in MariaDB.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from bench.measure import Report, interleaved
from tests.servers import ensure_installed, free_port
from tests.servers.packages import program

ENDPOINTS = 5_000
COMPARED = 3_000  # checks of one run against the peer
PACE = 2_000  # a second, on both sides: more than either can do
BLACKBOX = ("prometheus-blackbox-exporter",)


def run(report: Report) -> None:
    """Needs DATABASE_URL and a database that is migrated."""
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
    ensure_installed(*BLACKBOX)
    with served() as port:
        with blackbox() as peer:
            _endpoints(port, COMPARED, interval=10)
            cost = interleaved(
                {
                    "ours": lambda: _ours(seconds=COMPARED / PACE)["cpu_ms"],
                    "blackbox": lambda: peer.cpu_ms(f"http://127.0.0.1:{port}/", COMPARED),
                },
                runs=7,
            )
        report.figure("one check, judged and stored: CPU", cost["ours"], "ms")
        report.figure("one check by blackbox_exporter, stored nowhere: CPU", cost["blackbox"], "ms")
        report.ratio("CPU of a check ÷ blackbox_exporter's", cost["ours"] / cost["blackbox"], at_most=0.75)
        _endpoints(port, ENDPOINTS, interval=60)
        before = _bytes()
        minute = _ours(seconds=60)
        report.note(f"{ENDPOINTS:,} endpoints every 60 s, for a minute:")
        report.ratio("share of one core", minute["cpu_ms"] * minute["checks"] / 60_000, at_most=0.15)
        report.ratio("start lag, 99th percentile (ms) ÷ 50 ms", minute["lag_p99_ms"] / 50, at_most=1)
        report.ratio("statements of a check ÷ 0.02", minute["statements"] / minute["checks"] / 0.02, at_most=1)
        report.figure("one stored check", (_bytes() - before) / minute["checks"], "bytes with its indexes")


def _endpoints(port: int, count: int, *, interval: int) -> None:
    from apps.health.models import ProbeSlice
    from apps.inventory.models import Endpoint, Service, Workload

    ProbeSlice.objects.all().delete()
    Endpoint.objects.all().delete()
    service, _ = Service.objects.get_or_create(slug="checked", defaults={"name": "Checked"})
    workload, _ = Workload.objects.get_or_create(service=service, environment="production")
    Workload.objects.filter(pk=workload.pk).update(base_url=f"http://127.0.0.1:{port}")
    Endpoint.objects.bulk_create(
        Endpoint(workload=workload, name=f"{number}", endpoint_path=f"/{number}", interval_seconds=interval)
        for number in range(count)
    )


def _ours(*, seconds: float) -> dict[str, float]:
    """One slice of so many seconds in a process of its own."""
    command = [sys.executable, "-m", "bench.checks", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _slice(seconds: float) -> dict[str, float]:
    import django

    django.setup()
    from django.db import connection

    from apps.health.models import ProbeSlice
    from apps.health.prober import Prober
    from apps.health.rules import schedule

    def statements() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
            return int(cursor.fetchone()[1])

    if seconds < 60:  # each of the endpoints once, at that pace
        whole = schedule.phase_of
        schedule.phase_of = lambda key, interval: whole(key, interval) * seconds / interval
        start = datetime.fromtimestamp(time.time() // 10 * 10 + 20, UTC)
        time.sleep(max(0.0, start.timestamp() - time.time() - 4))
    else:
        start = datetime.now(UTC) + timedelta(seconds=4)
    schedule.MINUTE, schedule.LEAD = timedelta(seconds=seconds), timedelta(0)
    ProbeSlice.objects.all().delete()  # or this slice would make good what none has done since the last run
    before, used = statements(), time.process_time()
    report = asyncio.run(Prober(allow_loopback=True).run(0, 1, start))
    assert report is not None
    cpu = time.process_time() - used
    lags = sorted(report.lags)
    return {
        "checks": report.checks,
        "cpu_ms": 1000 * cpu / report.checks,
        "lag_p99_ms": 1000 * lags[len(lags) * 99 // 100],
        "statements": statements() - before - 1,
    }


def _bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE endpoint_checks")
        cursor.fetchall()
        cursor.execute(
            "SELECT data_length + index_length FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name = 'endpoint_checks'"
        )
        return int(cursor.fetchone()[0])


class Answering(asyncio.Protocol):
    """The server both ask: as little as HTTP allows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self.transport.close()


@contextmanager
def served() -> Iterator[int]:
    """The server, in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.checks", "serve", str(port)])
    try:
        _wait(port)
        yield port
    finally:
        process.kill()
        process.wait()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


class Blackbox:
    """A running blackbox_exporter."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port = pid, port

    def cpu_ms(self, target: str, checks: int) -> float:
        """Milliseconds of CPU it takes for one check, at our pace."""
        before = self._cpu()
        asyncio.run(self._drive(f"/probe?module=http_2xx&target={quote(target, safe='')}", checks))
        return (self._cpu() - before) / checks

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _drive(self, path: str, checks: int) -> None:
        import aiohttp

        url = f"http://127.0.0.1:{self._port}{path}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:

            async def one() -> None:
                async with session.get(url) as response:
                    if "probe_success 1" not in await response.text():
                        raise RuntimeError("blackbox_exporter did not reach the server")

            started, running = time.monotonic(), set()
            for number in range(checks):
                await asyncio.sleep(max(0.0, started + number / PACE - time.monotonic()))
                running.add(asyncio.create_task(one()))
            await asyncio.gather(*running)


@contextmanager
def blackbox() -> Iterator[Blackbox]:
    """blackbox_exporter with one plain module."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "blackbox.yml")
        settings.write_text(
            "modules:\n  http_2xx:\n    prober: http\n    timeout: 10s\n"
            "    http: {preferred_ip_protocol: ip4, valid_http_versions: [HTTP/1.0, HTTP/1.1]}\n"
        )
        command = [
            program("prometheus-blackbox-exporter", *BLACKBOX),
            f"--config.file={settings}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait(port)
            yield Blackbox(process.pid, port)
        finally:
            process.kill()
            process.wait()


def _wait(port: int) -> None:
    import socket

    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        print(json.dumps(_slice(float(sys.argv[1]))))
