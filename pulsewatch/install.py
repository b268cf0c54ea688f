"""Installs locked requirements into `.venv`, then becomes the command that needs them.

    python3 pulsewatch/install.py base dev -- -m pytest

Standard library only. The whole file keeps to syntax that Python 3.6 can parse, so that an old Python comes as far as
the version check and answers with a sentence.
"""

import os
import shutil
import subprocess
import sys


def say(sentence: str) -> None:
    """Tell the person who started this; standard output belongs to the programs that follow."""
    try:
        sys.stderr.write("pulsewatch: " + sentence + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is listening any more


if sys.version_info < (3, 11):
    for _name in ("python3.13", "python3.12", "python3.11"):
        _path = shutil.which(_name)
        # A name on PATH proves nothing, version managers leave stubs behind: it has to run.
        if _path and subprocess.call([_path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            os.execv(_path, [_path] + sys.argv)  # noqa: RUF005, S606  (3.6 syntax; becoming it is the point)
    say(
        "Python {}.{}.{} ({}) is too old: Pulsewatch needs 3.11 or newer. Install one and name it, for example: "
        "make run PYTHON=python3.12".format(*sys.version_info[:3], sys.executable)
    )
    sys.exit(1)

import errno
import fcntl
import hashlib
import importlib.util
import json
import re
import signal
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

BASE = Path(__file__).resolve().parent.parent
VENV = BASE / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "pulsewatch.json"  # which locks are installed, for which Python, and whether that was finished
LOG = VENV / "install.log"  # everything the installers said, the last time they were needed

# What a log shows when the package index cannot be reached, in the words of pip and of uv.
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Network is unreachable|dns error"
    r"|Connection refused|Connection reset|emporary failure in name resolution|tcp connect error|operation timed out"
)
_MYSQL_VARIABLES = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DATABASE")


class Failed(Exception):
    """An installer gave up; the text is what it said."""


def main(arguments: list[str]) -> None:
    """Install the locks named before `--`, then become `.venv/bin/python` with the arguments behind it."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    locks, command = arguments[:cut], arguments[cut + 1 :]
    os.chdir(BASE)
    if "mysql" not in locks and mysql_is_configured():
        locks.append("mysql")
    try:
        ensure(locks)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            stop(f"The disk that holds {BASE} is full: make room and start again.")
        stop(
            f"Cannot write {error.filename or VENV} ({error.strerror}): Pulsewatch installs itself into {VENV}. Give "
            "yourself the right to write there, or put the clone where you have it."
        )
    except KeyboardInterrupt:
        say("Interrupted. The next start completes the installation.")
        sys.exit(130)
    if command:
        conceal("PULSEWATCH_ADMIN_PASSWORD")
        os.execv(PYTHON, [str(PYTHON), *command])  # noqa: S606  (becoming it is the point)


def stop(sentence: str) -> NoReturn:
    """Say what is wrong and what to do about it, and end with status 1."""
    say(sentence)
    sys.exit(1)


def ensure(locks: list[str]) -> None:
    """Bring `.venv` to what these locks describe; returns in milliseconds when it is there already."""
    wanted = {lock: hashlib.sha256(lock_file(lock).read_bytes()).hexdigest() for lock in locks}
    if wanted.items() <= installed().items():
        return
    turn = take_turn(wanted)
    if turn is None:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the installer below ends as well
    try:
        reason = unusable()
        if reason:
            say(f"Making .venv anew: {reason}.")
            shutil.rmtree(VENV)
        done = installed()
        VENV.mkdir(exist_ok=True)
        LOG.write_bytes(b"")
        for lock, digest in wanted.items():
            if done.get(lock) != digest:
                write_stamp(done, finished=False)
                install(lock, done, turn)
                done[lock] = digest
                write_stamp(done)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(turn)


def lock_file(lock: str) -> Path:
    """Where the lock of that name lies."""
    return BASE / "requirements" / f"{lock}.txt"


# --- What is installed ------------------------------------------------------------------------------------------------
def installed() -> dict[str, str]:
    """The locks in `.venv` and their hashes; empty when it is not whole, was moved, or lost its Python."""
    stamp = read_stamp()
    if not stamp.get("finished") or any(stamp.get(key) != value for key, value in identity().items()):
        return {}
    return dict(stamp["locks"])


def read_stamp() -> dict[str, Any]:
    """The stamp's content; empty when there is none."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(locks: dict[str, str], *, finished: bool = True) -> None:
    """Note what `.venv` holds. The file changes whole or not at all."""
    draft = STAMP.with_suffix(".draft")
    draft.write_text(json.dumps({**identity(), "finished": finished, "locks": locks}))
    draft.replace(STAMP)


def identity() -> dict[str, str]:
    """What ties `.venv` to this place and this Python: scripts carry its path, packages fit one minor version."""
    return {"at": str(VENV), "python": sysconfig.get_python_version(), "interpreter": os.path.realpath(PYTHON)}


def unusable() -> str:
    """Why `.venv` has to be made anew; empty when it is fit, or is not there."""
    if VENV.is_symlink() or (VENV.exists() and not VENV.is_dir()):
        stop(f"{VENV} is not a folder, and Pulsewatch installs itself there: move it away and start again.")
    if not VENV.exists():
        return ""
    stamp = read_stamp()
    if stamp and not stamp.get("finished"):
        return "its installation was interrupted"
    version = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    if not PYTHON.exists() or subprocess.call([PYTHON, "-I", "-S", "-c", version], stderr=subprocess.DEVNULL) != 0:
        return f"it has no Python {sysconfig.get_python_version()}"
    # Without a stamp somebody made it by hand: that is installed into.
    return "it was moved, or its Python was replaced" if stamp and not installed() else ""


# --- One at a time ----------------------------------------------------------------------------------------------------
def take_turn(wanted: dict[str, str]) -> int | None:
    """The handle whose lock keeps other installers out, or None when one of them has done our work meanwhile.

    The lock lies on the clone's folder. A running Pulsewatch shares it (`keep_installers_out`): its packages are in
    use. The installers started here inherit the handle: killed or not, nobody else writes while one of them does.
    """
    handle = os.open(BASE, os.O_RDONLY)
    told = False
    while True:
        if wanted.items() <= installed().items():
            os.close(handle)
            return None
        if try_lock(handle, fcntl.LOCK_EX):
            return handle
        if try_lock(handle, fcntl.LOCK_SH):
            stop("Pulsewatch runs in this folder and its requirements have changed: stop it, then start again.")
        if not told:
            say("Another installation is under way in this folder; waiting for it.")
            told = True
        time.sleep(0.2)


def try_lock(handle: int, kind: int) -> bool:
    """Take the lock at once or not at all. On a file system without locks everybody gets it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def keep_installers_out() -> None:
    """Share the lock for as long as this process lives: what it runs on must not change beneath it."""
    try_lock(os.open(BASE, os.O_RDONLY), fcntl.LOCK_SH)


# --- Installing -------------------------------------------------------------------------------------------------------
def install(name: str, done: dict[str, str], turn: int) -> None:
    """Install one lock into `.venv`, which is made when it is missing. Ends the process with a sentence on failure."""
    if not PYTHON.exists():
        # Called from inside another environment, `venv` would hang this one on it: name the Python beneath.
        python = getattr(sys, "_base_executable", sys.executable)
        try:
            attempt([python, "-m", "venv", "--without-pip", str(VENV)], turn)
        except Failed:
            stop(f"{python} cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv")
    count = len(re.findall(r"^[A-Za-z0-9].*==", lock_file(name).read_text(), re.MULTILINE))
    say(f"Installing {count} package{'s' * (count != 1)} (requirements/{name}.txt) into .venv ...")
    options = ["--require-hashes", "--no-deps", "--requirement", str(lock_file(name))]
    said, untouched = "", True
    for installer in installers(turn):
        before = packages_changed_at()
        try:
            attempt([*installer, *options], turn)
        except Failed as failed:
            said = str(failed)
            untouched = untouched and packages_changed_at() == before
        else:
            return
    if untouched and done:
        write_stamp(done)  # nothing was written, so what worked before still does
    stop(diagnosis(name, said))


def installers(turn: int) -> Iterator[list[str]]:
    """The ways to install into `.venv`, best first. uv reads no pip configuration, so pip is tried after it."""
    uv = shutil.which("uv")
    if uv:
        yield [uv, "pip", "install", "--python", str(PYTHON)]
    pip = [str(PYTHON), "-m", "pip"]
    if not list(VENV.glob("lib/python*/site-packages/pip")):
        if importlib.util.find_spec("ensurepip"):
            attempt([str(PYTHON), "-m", "ensurepip"], turn)
        elif shutil.which("pip"):
            pip = [str(shutil.which("pip")), "--python", str(PYTHON)]  # Debian without python3-venv
        elif uv:
            return
        else:
            stop("This Python has no pip. Either: sudo apt install python3-venv, or install uv; then start again.")
    yield [*pip, "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2"]


def attempt(command: list[str], turn: int) -> None:
    """Run one installer to its end, its words into the log. Raises Failed with them."""
    # A user's habit for other projects must not lead out of `.venv`; uv trusts the system's certificates as pip does.
    environment = {**os.environ, "PIP_USER": "0", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    with LOG.open("ab") as log:
        start = log.tell()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=[turn]
            )
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        try:
            status = process.wait()
        except BaseException:  # Ctrl-C or TERM: it must not go on without us
            process.terminate()
            process.wait()
            raise
    if status:
        raise Failed(LOG.read_bytes()[start:].decode(errors="replace"))


def packages_changed_at() -> list[int]:
    """When something was last added to or taken from `.venv`'s packages, in nanoseconds."""
    return [folder.stat().st_mtime_ns for folder in VENV.glob("lib/python*/site-packages")]


def diagnosis(name: str, said: str) -> str:
    """One sentence on why an installation failed, and its remedy."""
    if _NO_NETWORK.search(said):
        return "The package index cannot be reached: check the network (or the proxy), then start again."
    if "No space left on device" in said:
        return f"The disk that holds {BASE} is full: make room and start again."
    missing = missing_for_mysql() if name == "mysql" else []
    if missing:
        return (
            f"The database is MySQL, whose driver has to be compiled, and this is missing: {', '.join(missing)}. "
            f"Install it: sudo apt install {' '.join(missing)}"
        )
    if "HASH" in said or "hash mismatch" in said.lower():
        return f"A package is not the one that requirements/{name}.txt was made with; see {LOG}. Do not go on with it."
    return f"The packages of requirements/{name}.txt cannot be installed; what the installer said is in {LOG}."


# --- MySQL ------------------------------------------------------------------------------------------------------------
def mysql_is_configured() -> bool:
    """Whether the environment or the `.env` file names MySQL, by the rules of pulsewatch/settings.py."""
    values = {**env_file(BASE / os.environ.get("ENV_FILE", ".env")), **os.environ}
    url = values.get("DATABASE_URL", "")
    if values.get("DATABASE_URL_FILE"):
        try:
            url = Path(values["DATABASE_URL_FILE"]).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return False  # the settings say what is wrong with it
    if url:
        return url.startswith("mysql")
    return any(values.get(variable) or values.get(f"{variable}_FILE") for variable in _MYSQL_VARIABLES)


def env_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file; empty when there is none."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = (re.match(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$", line) for line in lines)
    return {match[1]: match[2].strip("'\"") for match in found if match}


def missing_for_mysql() -> list[str]:
    """Debian's packages without which mysqlclient does not compile here."""
    missing = []
    pkg_config = shutil.which(os.environ.get("PKG_CONFIG", "pkg-config"))
    compilers = [os.environ.get("CC", "cc"), "gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers):
        missing.append("gcc")
    if not pkg_config:
        missing.append("pkg-config")
    names = ("libmariadb", "mariadb", "mysqlclient", "perconaserverclient")
    if not pkg_config or not any(subprocess.call([pkg_config, "--exists", library]) == 0 for library in names):
        missing.append("libmariadb-dev")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("python3-dev")
    return missing


def conceal(name: str) -> None:
    """Hand a variable on in a nameless file: the environment of a process can be listed for as long as it runs."""
    if name in os.environ and f"{name}_FILE" not in os.environ:  # set twice is for the settings to judge
        with tempfile.TemporaryFile() as file:
            file.write(os.environb.pop(name.encode()))
            handle = os.dup(file.fileno())
        os.set_inheritable(handle, True)
        os.environ[f"{name}_FILE"] = f"/dev/fd/{handle}"


if __name__ == "__main__":
    main(sys.argv[1:])
