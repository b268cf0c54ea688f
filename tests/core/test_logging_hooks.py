"""What Python would print itself goes to the log, in a process of its own: the hooks are global."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

START = """
import logging.config, sys, threading, warnings
from apps.core.logging import install_hooks, logging_config

logging.config.dictConfig(logging_config("INFO"))
install_hooks()
"""


def run(code: str) -> tuple[int, list[dict[str, str]], str]:
    """Exit status, lines of the log and standard error."""
    result = subprocess.run(
        [sys.executable, "-c", START + code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_an_exception_nobody_caught_is_one_line_without_its_secret():
    status, lines, errors = run('raise ValueError("mysql://root:hunter2-secret@db/x refused")')

    (line,) = lines
    assert (status, errors) == (1, "")
    assert (line["level"], line["event_type"]) == ("CRITICAL", "startup_error")
    assert line["exception"].startswith("ValueError: mysql://")
    assert "Traceback" in line["stack_trace"]
    assert "hunter2" not in json.dumps(lines)


def test_an_exception_that_ends_a_thread_is_one_line_that_names_the_thread():
    status, lines, errors = run(
        'def fail(): raise ValueError("password=hunter2-secret")\n'
        't = threading.Thread(target=fail, name="announcer"); t.start(); t.join()'
    )

    (line,) = lines
    assert (status, errors, line["level"]) == (0, "", "ERROR")
    assert "announcer" in line["message"]
    assert line["exception"].startswith("ValueError")
    assert "hunter2" not in json.dumps(lines)


def test_a_warning_is_a_line_without_its_secret():
    _, lines, errors = run('warnings.warn("token=hunter2-secret", UserWarning)')

    (line,) = lines
    assert (errors, line["logger"], line["level"]) == ("", "py.warnings", "WARNING")
    assert "hunter2" not in json.dumps(lines)


def test_an_orderly_exit_and_ctrl_c_are_no_failures():
    leave = "t = threading.Thread(target=sys.exit); t.start(); t.join(); sys.exit(3)"
    assert run(leave) == (3, [], "")

    status, lines, errors = run("raise KeyboardInterrupt")
    assert (status != 0, lines) == (True, [])
    assert "KeyboardInterrupt" in errors
