"""Threads nobody waits for: calls come back, hung ones hold up neither the loop nor the process."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from apps.core.threads import LeftBehind


def test_calls_come_back_with_what_they_found_or_raised():
    threads = LeftBehind(3, "test")
    assert [call.result(5) for call in [threads.submit(pow, 2, number) for number in range(50)]] == [
        2**number for number in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(5)
    assert sum(thread.name.startswith("test-") for thread in threading.enumerate()) <= 3
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(pow, 1, 1)


def test_what_hangs_keeps_only_its_own_thread():
    go, threads = threading.Event(), LeftBehind(2, "hang")
    hung = threads.submit(go.wait, 30)
    assert [threads.submit(pow, 3, 1).result(5) for _ in range(5)] == [3] * 5
    also, queued = threads.submit(go.wait, 30), threads.submit(pow, 3, 1)
    while not also.running():
        assert not also.done()
    started = time.monotonic()
    threads.shutdown(cancel_futures=True)
    assert time.monotonic() - started < 1
    assert queued.cancelled()
    go.set()
    assert hung.result(5)
    assert also.result(5)


def test_a_loop_ends_while_its_look_up_still_hangs():
    go = threading.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(LeftBehind(2, "resolve"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await loop.run_in_executor(None, go.wait, 30)

    started = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - started < 5
    go.set()


def test_a_process_ends_while_a_call_hangs_for_ever(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    program = (
        "import sys, time\nfrom apps.core.threads import LeftBehind\n"
        "call = LeftBehind(1, 'x').submit(open, sys.argv[1])\n"
        "while not call.running(): time.sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "pipe"], check=True, timeout=20)
