"""Where a look at a database ends up: names that change their mind, certificates, and servers that mean harm."""

import os
import socket
import ssl
import struct
import threading

import pytest

from apps.inventory.addresses import parse_url
from tests.health.probers.pretenders import certificate, mysql_login, packet, pretender
from tests.health.probers.test_database import look, server
from tests.servers import MariaDB, Redis, free_port

__all__ = ["server"]  # a fixture

NAME = "shop.invalid"  # no name server knows it


@pytest.fixture
def resolver(monkeypatch):
    """Answers for NAME: what it says, the last one from then on. `asked` counts."""
    real = socket.getaddrinfo

    class Resolver:
        answers = ["127.0.0.1", "169.254.169.254"]
        names = {NAME}
        asked = 0

        def __call__(self, host, port, *rest, **named):
            if host in self.names:
                host = self.answers[min(self.asked, len(self.answers) - 1)]
                self.asked += 1
            return [found for one in host.split() for found in real(one, port, *rest, **named)]

    found = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    return found


def test_a_name_that_changes_its_mind_gains_nothing(server, resolver):
    (seen,) = look(parse_url(server.url.replace("127.0.0.1", NAME)))
    assert (seen.connection, seen.query, seen.failure) == ("connected", "success", "")
    assert resolver.asked == 1


def test_one_forbidden_address_among_others_refuses_the_name(server, resolver):
    resolver.answers = ["127.0.0.1 169.254.169.254"]
    (seen,) = look(parse_url(server.url.replace("127.0.0.1", NAME)))
    assert "metadata address" in seen.failure


def test_the_addresses_of_a_name_are_tried_in_turn(server, resolver):
    resolver.answers = ["127.9.9.9 127.0.0.1"]  # nothing listens at the first
    (seen,) = look(parse_url(server.url.replace("127.0.0.1", NAME)))
    assert (seen.connection, seen.query, seen.failure) == ("connected", "success", "")


def test_redis_over_tls_has_to_prove_its_name(resolver, tmp_path):
    made, key = certificate(tmp_path, f"DNS:{NAME}")
    port = free_port()
    tls = (*("--tls-port", str(port), "--tls-auth-clients", "no"), *("--tls-cert-file", str(made), "--tls-key-file"))
    with Redis(*tls, str(key), "--tls-ca-cert-file", str(made)):
        (seen,) = look(parse_url(f"rediss://{NAME}:{port}/0?ssl_ca={made}"))
        (other,) = look(parse_url(f"rediss://127.0.0.1:{port}/0?ssl_ca={made}"))
    assert (seen.query, resolver.asked) == ("success", 1)
    assert other.connection == "disconnected"


def test_postgresql_is_told_the_name_its_certificate_must_have(resolver, tmp_path):
    made, key = certificate(tmp_path, f"DNS:{NAME}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    started = []

    def serve(line: socket.socket) -> None:
        line.recv(8)  # may we speak TLS?
        line.sendall(b"S")
        with context.wrap_socket(line, server_side=True) as secure:
            started.append(secure.recv(4096))

    with pretender(serve) as (port, _):
        for host in (NAME, "127.0.0.1"):
            look(parse_url(f"postgresql://u:p@{host}:{port}/shop?sslmode=verify-full&sslrootcert={made}"), timeout=2)
    assert len(list(filter(None, started))) == 1  # the second time the name was another one
    assert b"user\0u\0" in started[0]


def test_mysql_that_proves_its_name_must_still_be_where_the_name_led(resolver, tmp_path):
    made, key = certificate(tmp_path, "IP:127.0.0.1", "DNS:127.0.0.1")
    with MariaDB(f"--ssl-cert={made}", f"--ssl-key={key}") as mariadb:
        address = parse_url(f"{mariadb.url}?ssl_mode=VERIFY_IDENTITY&ssl_ca={made}")
        (seen,) = look(address)
        resolver.names, resolver.answers = {"127.0.0.1"}, ["192.0.2.1"]  # what is judged is not what the driver finds
        (led,) = look(address)
    assert (seen.query, seen.failure) == ("success", "")
    assert (led.connection, led.failure) == ("error", "its host name led elsewhere the second time it was asked for")


def test_a_mysql_server_gets_no_file_of_ours(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("sesame, open")
    sent = []

    def serve(line: socket.socket) -> None:
        mysql_login(line)
        line.sendall(packet(1, b"\xfb" + os.fsencode(secret)))  # "send me this file first"
        while said := line.recv(4096):
            sent.append(said)

    with pretender(serve) as (port, _):
        (seen,) = look(parse_url(f"mysql://u:p@127.0.0.1:{port}/shop?ssl_mode=DISABLED"), timeout=1)
    assert seen.query == "failed"
    assert b"sesame" not in b"".join(sent)


@pytest.mark.parametrize("row", [b"\x011", b""], ids=["endless rows", "one byte at a time"])
def test_a_mysql_answer_without_end_holds_no_thread(row):
    column = b"\x03def\0\0\0\x011\0\x0c\x3f\0\x01\0\0\0\x08\x81\0\0\0\0"
    wait = threading.Event()

    def serve(line: socket.socket) -> None:
        mysql_login(line)
        line.sendall(packet(1, b"\x01") + packet(2, column) + packet(3, b"\xfe\0\0\x02\0"))
        for number in range(10**7):
            if row:
                line.sendall(packet(number % 256, row) * 100)
            else:
                line.sendall(b"\0")
                wait.wait(0.3)

    with pretender(serve) as (port, ended):
        (seen,) = look(parse_url(f"mysql://u:p@127.0.0.1:{port}/shop?ssl_mode=DISABLED"), timeout=1)
        assert seen.query == "failed"
        assert ended.wait(2), "the connection is still open"


def test_a_redis_answer_is_read_to_a_limit():
    sent = [0]

    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(b"$1000000000\r\n")
        while True:
            sent[0] += line.send(bytes(65536))

    with pretender(serve) as (port, _):
        (seen,) = look(parse_url(f"redis://:p@127.0.0.1:{port}/0"))
    assert seen.connection == "disconnected"
    assert sent[0] < 16 * 1024 * 1024  # what the sockets of both sides hold


def test_no_password_is_taken_from_a_file_of_the_account(tmp_path, monkeypatch):
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:*:sesame\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    said = []

    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(b"R" + struct.pack("!II", 8, 3))  # the password, please, as it is
        said.append(line.recv(4096))

    with pretender(serve) as (port, _):
        look(parse_url(f"postgresql://u@127.0.0.1:{port}/shop?sslmode=disable"))
    assert b"sesame" not in b"".join(said)


@pytest.mark.parametrize("url", ["rediss://127.0.0.1:1/0?ssl_ca=", "postgresql://u:p@127.0.0.1:1/x?sslrootcert=",
                                 "mysql://u:p@127.0.0.1:1/x?ssl_ca="])  # fmt: skip
def test_a_certificate_that_is_no_file_holds_nobody_up(url, tmp_path):
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(2**30)
    for path in (pipe, large, "/dev/zero"):
        (seen,) = look(parse_url(f"{url}{path}"), timeout=2)
        assert (seen.connection, "larger than any certificate" in seen.failure) == ("error", True)
    assert "cannot be found" in look(parse_url(f"{url}{tmp_path}/none"), timeout=2)[0].failure
