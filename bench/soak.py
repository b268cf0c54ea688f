"""`make soak`: Redis away for five minutes, beat for five minutes, the database frozen for one, in earnest time.

Takes about 26 minutes.
"""

import os
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from bench import frozen
from tests.fleet import Fleet, running

AWAY = 300  # seconds each of them is gone
WELL = 150  # seconds of ordinary work before, between and after


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, running("pulsewatch", Path(folder)) as fleet:
        fleet.celery("worker", "-Q", "fast", "-c", "4")
        fleet.worker("long")
        beat = fleet.beat()
        _wait("ordinary work", WELL)
        fleet.broker.kill()
        _wait("Redis is away", AWAY)
        fleet.broker.restart()
        _wait("Redis is back, nothing else was restarted", WELL)
        os.killpg(beat.pid, signal.SIGKILL)
        beat.wait()
        _wait("beat is away", AWAY)
        fleet.beat()
        _wait("beat is back", WELL)
        sampled = _report(fleet)
        return max(sampled, 0 if frozen.run(fleet) else 1)


def _wait(what: str, seconds: int) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {what}, {seconds} s", flush=True)
    time.sleep(seconds)


def _report(fleet: Fleet) -> int:
    slots = fleet.slots()
    minutes = [datetime.fromisoformat(slot) for slot in slots]
    expected = round((minutes[-1] - minutes[0]).total_seconds() / 60) + 1
    duplicates = len(slots) - len(set(slots))
    missing = expected - len(set(slots))
    allowed = 2 * (AWAY // 60 + 1)  # each outage, and the minute it ends in
    back = (datetime.fromisoformat(slots[-1]) - minutes[0]).total_seconds() >= 3 * WELL + 2 * AWAY - 120
    print(f"minutes: {expected}, samples: {len(slots)}, duplicates: {duplicates}, missing: {missing} (<= {allowed})")
    holds = duplicates == 0 and missing <= allowed and back
    print("ok   nothing was lost but the missed samples" if holds else "FAIL see above")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
