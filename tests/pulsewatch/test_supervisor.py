"""Each test runs a supervisor in a process of its own, over small Python programs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.test_servers import is_gone, wait_until

PROJECT = Path(__file__).parent.parent.parent
# Shorter times than the real ones; `make run` is tested with those.
DRIVER = """
import json, subprocess, sys
from pulsewatch import supervisor
programs, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
supervisor.QUIT_AFTER, supervisor.KILL_AFTER = options.get("quit", 0.5), options.get("kill", 1.0)
foundation = options.get("foundation")
running = supervisor.Supervisor(foundation and subprocess.Popen([sys.executable, "-c", foundation]))
for name, program in programs.items():
    running.add(name, sys.executable, "-uc", program, on_orphaned="TERM", quits=name.startswith("worker"))
running.loop()
print("fallen:", running.fallen, file=sys.stderr)
"""
OBEDIENT = "import time; print('{\"up\": 1}'); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{\"up\": 1}'); time.sleep(60)"

Start = Callable[..., "Supervised"]


class Supervised:
    """A running supervisor and what it started."""

    def __init__(self, folder: Path, programs: dict[str, str], **options: object) -> None:
        self.out, self.err = folder / "out", folder / "err"
        command = [sys.executable, "-c", DRIVER, json.dumps(programs), json.dumps(options)]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=PROJECT, stdout=out, stderr=err, start_new_session=True)
        self.below: set[int] = set()

    def until_up(self, count: int) -> None:
        """Wait until that many programs have said so, and remember what runs."""
        wait_until(lambda: self.out.read_bytes().count(b"up") >= count)
        self.below = {process.pid for process in psutil.Process(self.process.pid).children(recursive=True)}

    def wait(self) -> float:
        """Seconds until the supervisor ended; everything it started must have ended too."""
        started = time.monotonic()
        self.process.wait(timeout=15)
        took = time.monotonic() - started
        wait_until(lambda: all(is_gone(pid) for pid in self.below))
        return took


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(programs: dict[str, str], **options: object) -> Supervised:
        started.append(Supervised(tmp_path, programs, **options))
        return started[-1]

    yield start
    for supervised in started:
        supervised.process.kill()
        supervised.process.wait()
        for pid in supervised.below:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_json_lines_pass_unchanged_and_everything_else_goes_to_standard_error(start: Start) -> None:
    line = json.dumps({"message": "one\u2028line\x85with\x0bodd separators", "long": "x" * 100_000}, ensure_ascii=False)
    supervised = start({"web": f"print({line!r}); print(); print('a warning')"})
    supervised.wait()
    assert supervised.out.read_text().splitlines() != []
    assert supervised.out.read_bytes() == line.encode() + b"\n"
    assert supervised.err.read_text() == "a warning\nfallen: web\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(start: Start, number: signal.Signals) -> None:
    supervised = start({"web": OBEDIENT, "beat": OBEDIENT})
    supervised.until_up(2)
    supervised.process.send_signal(number)
    assert supervised.wait() < 1
    assert supervised.process.returncode == 0
    assert supervised.err.read_text() == "fallen: \n"


def test_a_process_that_ends_by_itself_ends_all_and_is_named(start: Start) -> None:
    supervised = start({"web": OBEDIENT, "beat": "import time; time.sleep(0.3); print('{}')"})
    supervised.wait()
    assert supervised.err.read_text() == "fallen: beat\n"


def test_the_end_of_the_foundation_ends_all(start: Start) -> None:
    supervised = start({"web": OBEDIENT}, foundation="import time; time.sleep(0.5)")
    supervised.wait()
    assert supervised.err.read_text() == "fallen: valkey\n"


def test_who_ignores_the_request_is_killed_in_time(start: Start) -> None:
    supervised = start({"web": DEAF, "beat": OBEDIENT})
    supervised.until_up(2)
    supervised.process.terminate()
    assert 0.9 < supervised.wait() < 2


def test_a_frozen_process_is_killed_in_time(start: Start) -> None:
    supervised = start({"web": OBEDIENT})
    supervised.until_up(1)
    for pid in supervised.below:
        os.kill(pid, signal.SIGSTOP)
    supervised.process.terminate()
    assert supervised.wait() < 2


def test_a_worker_that_is_still_busy_is_told_to_quit_before_it_is_killed(start: Start) -> None:
    quitting = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGQUIT, lambda *_: sys.exit(print('{\"quit\": 1}')))\n"
        "print('{\"up\": 1}')\n"
        "time.sleep(60)"
    )
    supervised = start({"worker-fast": quitting}, kill=30)
    supervised.until_up(1)
    supervised.process.terminate()
    assert 0.4 < supervised.wait() < 2
    assert b"quit" in supervised.out.read_bytes()


def test_a_second_ctrl_c_waits_for_nobody(start: Start) -> None:
    supervised = start({"web": DEAF}, kill=30)
    supervised.until_up(1)
    supervised.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(timeout=0.5)
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.wait() < 1


def test_what_a_killed_process_leaves_behind_is_ended(start: Start) -> None:
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-uc', {OBEDIENT!r}]); {OBEDIENT}"
    supervised = start({"web": parent})
    supervised.until_up(2)
    (main,) = psutil.Process(supervised.process.pid).children()
    main.kill()
    assert supervised.wait() < 1
    assert supervised.err.read_text() == "fallen: web\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process follow its parent into death")
def test_nothing_outlives_a_killed_supervisor(start: Start) -> None:
    supervised = start({"web": OBEDIENT, "beat": OBEDIENT})
    supervised.until_up(2)
    supervised.process.kill()
    supervised.wait()
    assert len(supervised.below) == 2


def test_the_end_of_its_reader_is_its_own(start: Start, tmp_path: Path) -> None:
    chatty = "import time\nwhile True: print('{}'); time.sleep(0.05)"
    command = [sys.executable, "-c", DRIVER, json.dumps({"web": chatty}), "{}"]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"{}\n"
    process.stdout.close()
    assert process.stderr.read() == b"fallen: \n"
    process.stderr.close()
    assert process.wait(timeout=10) == 0
