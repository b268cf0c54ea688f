"""`make run`: brings the whole console up in this folder, and down again.

    .venv/bin/python -m pulsewatch.launch

Standard output carries the JSON lines of all processes, standard error the words for people. Status 0 after Ctrl-C or
TERM, 1 when it could not start or a process ended by itself.
"""

import errno
import fcntl
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NoReturn

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connections

from pulsewatch import valkey
from pulsewatch.embedded import SOCKET_PATH_LIMIT, private_folder
from pulsewatch.env import Reader, reachable, require_settings_module
from pulsewatch.install import keep_installers_out, say, stop
from pulsewatch.supervisor import Supervisor, leash

READY_SECONDS = 60  # each time that long, a person wants to know what is missing; a start takes 4
LOOK_EVERY = 0.2  # seconds between two looks whether it is ready
ADMIN = "admin"
PASSWORD = "PULSEWATCH_ADMIN_PASSWORD"  # noqa: S105  (a name)


def main() -> int:
    """Start everything, stay until the end, return the exit status."""
    broker: subprocess.Popen[bytes] | None = None

    def end_before_start(*_: object) -> NoReturn:
        # Not by an exception: Python drops those that are raised while it cleans up an object.
        if broker:
            broker.kill()
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_before_start)
    os.umask(0o077)
    require_settings_module()
    django.setup()
    # The settings have found no fault with it, and do not keep it: settings can be printed.
    password = Reader(os.environ).text(PASSWORD, example="a-long-pass-phrase")
    for name in (PASSWORD, f"{PASSWORD}_FILE"):
        os.environ.pop(name, None)
    # Celery lectures root in ten lines, three times a start. Whoever starts a console as root knows that he is root.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:You're running the worker with superuser privileges")

    private_folder(settings.VAR_DIR)
    keep_installers_out()
    running = only_one(settings.VAR_DIR / "run.lock")
    check_socket_path()
    check_port(settings.HOST, settings.PORT)
    prepare_database()
    ensure_admin(password)
    register_itself()
    if settings.EMBEDDED_SOCKET:
        broker = valkey.start(settings.EMBEDDED_SOCKET, *leash("TERM"))
        valkey.wait_for(broker, settings.EMBEDDED_SOCKET)
    try:
        return run(broker, beat=settings.SCHEDULER_ENABLED)
    finally:
        if broker:
            valkey.stop(broker)
        os.close(running)


def run(broker: subprocess.Popen[bytes] | None, *, beat: bool) -> int:
    """Run the processes until all of them have ended."""
    supervisor = Supervisor(foundation=broker)
    gunicorn = (sys.executable, "-m", "gunicorn")
    celery = (sys.executable, "-m", "celery", "--quiet", "--app", "pulsewatch")
    # QUIT ends gunicorn and the workers at once, yet in good order; beat has no order to keep.
    supervisor.add("web", *gunicorn, "--config", "python:pulsewatch.web", "pulsewatch.wsgi", on_orphaned="QUIT")
    # A slice of checks holds a process of queue `fast` for its minute, and a little of the next one.
    for queue, processes in (("fast", 2 + 2 * settings.PROBE_SHARDS), ("long", 1)):
        worker = f"worker --queues {queue} --hostname {queue}-{settings.PORT}@%h --concurrency {processes}"
        # Talk between workers that nothing here uses, and that a start would wait for.
        worker += " --without-gossip --without-mingle --without-heartbeat"
        supervisor.add(f"worker-{queue}", *celery, *worker.split(), on_orphaned="QUIT", quits=True)
    if beat:
        supervisor.add("beat", *celery, "beat", on_orphaned="TERM")
    threading.Thread(target=announce, args=[supervisor], daemon=True).start()
    supervisor.loop()
    if supervisor.fallen:
        say(f"Stopped, because {supervisor.fallen} ended by itself; its last lines above say why.")
        return 1
    say("Stopped.")
    return 0


# --- Before anything is started ---------------------------------------------------------------------------------------
def only_one(path: Path) -> int:
    """Hold the lock of this folder of data until the handle is closed. Ends the process when another one holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(handle, 200).decode(errors="replace").strip()
        stop(f"Pulsewatch already runs in this folder ({holder}): stop that one first, or start in a second clone.")
    except OSError:
        pass  # a file system without locks
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()}, {address()}".encode())
    return handle


def check_socket_path() -> None:
    """The system cuts the path of a Unix socket; gunicorn's control socket has the longest name of ours."""
    longest = len(os.fsencode(settings.VAR_DIR / "gunicorn.sock")) + 1
    if longest > SOCKET_PATH_LIMIT:
        stop(
            f"The path of {settings.VAR_DIR} is {longest - SOCKET_PATH_LIMIT} bytes too long for the sockets in it: "
            "move the clone to a shorter path, or set VAR_DIR to one."
        )


def check_port(host: str, port: int) -> None:
    """End the process with a sentence when gunicorn could not listen there."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
            probe.bind(place)
    except socket.gaierror:
        stop(f"HOST={host} is no address of this machine: leave it out for 127.0.0.1, or set 0.0.0.0 for all of them.")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            stop(f"Port {port} is taken by another program: choose another one, as in: make run PORT={port + 1}")
        if error.errno == errno.EACCES:
            stop(f"Port {port} is for the system's own services: choose one above 1023, as in: make run PORT=8000")
        stop(f"Cannot listen on HOST={host}, port {port} ({error.strerror}): leave HOST out for 127.0.0.1.")


def prepare_database() -> None:
    """Migrate, make the groups."""
    try:
        call_command("prepare", verbosity=0, stdout=io.StringIO())
    except CommandError as error:
        stop(str(error))
    finally:
        connections.close_all()


def ensure_admin(password: str) -> None:
    """Make user `admin` when there is none, with this password or, when it is empty, one that is shown once."""
    users = get_user_model()
    user = users.objects.filter(username=ADMIN).first()
    if user:
        if password and not user.check_password(password):
            say(
                f"User {ADMIN} exists and keeps its password: {PASSWORD} is used when the user is made. To change it: "
                f".venv/bin/python manage.py changepassword {ADMIN}"
            )
        return
    new = password or secrets.token_urlsafe(12)  # 16 characters
    try:
        validate_password(new, users(username=ADMIN))
        users.objects.create_superuser(ADMIN, password=new)
    except ValidationError as weak:
        stop(f"No user was made, {PASSWORD} is too weak: {' '.join(weak.messages)}")
    except IntegrityError:
        return  # another console on this database was faster
    if not password:
        say(f"Sign in as {ADMIN} with the password {new} (shown this once only; change it after signing in)")


def register_itself() -> None:
    """Make this console an instance of service `pulsewatch`, so that CI can name it before the first minute is over."""
    from apps.core.errors import PulsewatchError
    from apps.inventory.services import ensure_own_instance  # models can be imported once Django is set up

    try:
        ensure_own_instance(instance_id=settings.INSTANCE_ID, url=settings.SELF_URL, environment=settings.ENVIRONMENT)
    except (PulsewatchError, IntegrityError):
        pass  # the first sample tries again, and logs what is wrong
    finally:
        connections.close_all()


# --- Once everything is started ---------------------------------------------------------------------------------------
def announce(supervisor: Supervisor) -> None:
    """Say where the console is as soon as it is ready, or after a while why it is not. For a thread of its own."""
    started, patience = time.monotonic(), READY_SECONDS
    while not supervisor.ending:
        reason = unready()
        if not reason:
            say(f"Ready: {address()} (Ctrl-C stops it)")
            return
        if time.monotonic() > started + patience:
            say(f"Not ready after {patience} s: {reason}. The lines above say more; it goes on trying.")
            patience += READY_SECONDS
        time.sleep(LOOK_EVERY)


def unready() -> str:
    """Why the console is not ready; empty when it is."""
    connection = HTTPConnection(reachable(settings.HOST), settings.PORT, timeout=READY_SECONDS)
    try:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        checks = json.loads(response.read()).get("checks", {})
    except (OSError, HTTPException, ValueError):
        return "the web process does not answer"
    finally:
        connection.close()
    if response.status == 200:
        return ""
    return "; ".join(f"{name}: {check['message']}" for name, check in checks.items() if check["status"] == "unhealthy")


def address() -> str:
    """Where a browser on this machine finds the console."""
    return f"{settings.LOCAL_URL}/"


if __name__ == "__main__":
    sys.exit(main())
