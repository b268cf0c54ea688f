"""Backups of MariaDB against the pipelines people write themselves, on the same data: time, CPU, memory, restore.

One gigabyte of SQL (`--size` for another amount), made once, in a private server. All dump with the same options from
that server (django-dbbackup chooses its own), write to the same folder and end when their file is on the disk (fsync);
no cache is dropped. CPU seconds are those of the client's side: the server's are the same for all. A worker has been
running for long when a backup begins, so the start of our process does not count.
"""

import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import RUNS, Cost, Report, median, median_ratio
from bench.shop import Shop, server
from tests.servers import ensure_installed

GIGABYTE = 10**9
SLOW_RUNS = 1  # of the slow peers: minutes each, and without a bound
SMALL, LARGE = 0.1, 2  # times the size: of the dumps whose peaks of memory are compared
MEMORY_MB = 160  # above the idle process


def run(report: Report, *, size: float = 1, runs: int = RUNS) -> None:
    """All of it; `size` is in gigabytes of SQL."""
    ensure_installed("zstd", "gzip", "openssl")
    with tempfile.TemporaryDirectory(prefix="pulsewatch-bench-") as name:
        folder = Path(name)
        with server(folder, int(size * GIGABYTE)) as database:
            started = time.perf_counter()
            shop = Shop(folder, database)
            shop.fill(int(size * GIGABYTE))
            report.note(f"database for {size:g} GB of SQL, made in {time.perf_counter() - started:.0f} s")
            ours = _backup(report, shop, runs)
            _slow_peers(report, shop, min(runs, SLOW_RUNS), median(ours))
            _memory(report, shop, int(size * GIGABYTE))
            _restore(report, shop, runs)


def _backup(report: Report, shop: Shop, runs: int) -> list[Cost]:
    peers: list[Cost] = []
    answers: list[dict[str, Any]] = []
    for run in range(runs + 1):
        shop.forget()
        peers.append(shop.zstd())
        answers.append(shop.back_up())
        report.note(
            f"backup {run or '(not counted)'}: {peers[-1].seconds:.2f} s, ours {answers[-1]['backup'].seconds:.2f} s"
        )
    peers, answers = peers[1:], answers[1:]  # the first round filled the caches
    ours, checks = [answer["backup"] for answer in answers], [answer["check"] for answer in answers]
    last = answers[-1]
    report.figure("the dump", last["plain_bytes"] / 1e6, "MB")
    report.figure("our object", last["stored_bytes"] / 1e6, "MB")
    report.figure("the peer's file", shop.compressed.stat().st_size / 1e6, "MB")
    report.cost("mariadb-dump | zstd -3", median(peers))
    report.cost("whole backup, encrypted, with digests", median(ours))
    report.cost("integrity check", median(checks))
    report.ratio("whole backup ÷ (mariadb-dump | zstd -3)", median_ratio(ours, peers), at_most=1.1)
    report.note(f"CPU seconds, ours ÷ theirs: {median(ours).cpu / median(peers).cpu:.2f}")
    report.ratio("integrity check ÷ whole backup", median_ratio(checks, ours), at_most=0.3)
    grown = max(max(answer["peak"], answer["peak_of_check"]) - answer["idle"] for answer in answers)
    report.ratio("peak RSS of backup and check above the idle process, MB", grown, at_most=MEMORY_MB)
    return ours


def _slow_peers(report: Report, shop: Shop, runs: int, ours: Cost) -> None:
    gzip, dbbackup = [], []
    for _ in range(runs):
        gzip.append(shop.gzip_openssl())
        dbbackup.append(shop.django_dbbackup())
    report.note(f"slow peers, {runs} run each:")
    for name, costs in {"mariadb-dump | gzip | openssl": gzip, "django-dbbackup, compressed": dbbackup}.items():
        cost = median(costs)
        report.cost(name, cost)
        report.figure(f"{name} ÷ whole backup", cost.seconds / ours.seconds, f"times, CPU {cost.cpu / ours.cpu:.1f}")


def _memory(report: Report, shop: Shop, size: int) -> None:
    report.note("memory: a recorded dump, cut or repeated, comes through the client's pipe instead of the server's")
    peaks = {}
    for times in (SMALL, LARGE):
        answer = shop.back_up(recorded=_recorded(shop, int(times * size)))
        peaks[times] = max(answer["peak"], answer["peak_of_check"])
        report.figure(f"peak RSS, {times * size / GIGABYTE:g} GB", peaks[times], f"MB, idle {answer['idle']:.1f} MB")
    report.ratio("peak RSS, large ÷ small dump", peaks[LARGE] / peaks[SMALL], at_most=1.1)


def _recorded(shop: Shop, size: int) -> str:
    """A shell command that writes a dump of that size, over and over the same one."""
    path = shlex.quote(str(shop.compressed))
    return f"while zstd -dcq {path}; do :; done 2>/dev/null | head -c {size}"


def _restore(report: Report, shop: Shop, runs: int) -> None:
    shop.forget()
    shop.zstd()
    sidecar = shop.back_up()["sidecar"]
    peers, ours, checks = [], [], []
    for run in range(runs):
        peers.append(shop.restore_zstd())
        answer = shop.restore(sidecar)
        ours.append(answer["restore"])
        checks.append(answer["check"])
        report.note(f"restore {run + 1}: {peers[-1].seconds:.1f} s, ours {ours[-1].seconds:.1f} s")
    report.cost("zstd -d | mariadb", median(peers))
    report.cost("verify pass before a restore", median(checks))
    report.cost("restore", median(ours))
    report.ratio("restore ÷ (zstd -d | mariadb)", median_ratio(ours, peers), at_most=1.05)
