"""Who may come in: tokens, their scopes, their end, and how often they may ask."""

import io
import logging
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from apps.api import access, services
from apps.api.choices import Scope
from apps.api.models import ApiToken
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.logging import JsonFormatter
from apps.core.models import AuditEntry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CI = Actor.automation("test")


def make(name="ci", scopes=("health:read",), **options):
    return services.create_token(name=name, scopes=scopes, actor=CI, **options)


def problem_of(reply, status):
    assert (reply.status_code, reply["Content-Type"]) == (status, "application/problem+json"), reply.content
    assert reply.json()["status"] == status
    return reply.json()


@pytest.mark.django_db
@pytest.mark.engine
def test_of_a_token_only_a_hash_is_kept_and_the_trail_says_who_made_it():
    row, text = make()

    secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
    assert secret not in str(ApiToken.objects.values().get())
    assert secret not in str(AuditEntry.objects.values().get())
    assert AuditEntry.objects.get().after["scopes"] == ["health:read"]
    assert (row.name, row.created_by, row.expires_at) == ("ci", "test", row.created_at + services.LASTING)


@pytest.mark.django_db
@pytest.mark.engine
def test_a_name_is_taken_until_its_token_is_revoked():
    row, _ = make()
    with pytest.raises(Conflict, match="named ci already"):
        make()
    services.revoke_token(token=row, actor=CI)
    make()
    with pytest.raises(Conflict, match="revoked before"):
        services.revoke_token(token=row, actor=CI)

    assert [entry.action for entry in AuditEntry.objects.of("token:ci")] == [
        "token.create",
        "token.revoke",
        "token.create",
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "<b>"}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["health:read", "everything"]}),
        ("expires", {"lasting": timedelta()}),
        ("expires", {"lasting": timedelta(days=4000)}),
    ],
)
def test_a_wrong_token_is_not_made(field, options):
    with pytest.raises(Invalid) as caught:
        make(**options)

    assert caught.value.field == field
    assert not ApiToken.objects.exists()


@pytest.mark.django_db
@pytest.mark.engine
@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"expires_at": NOON - timedelta(days=9)}, {"revoked_at": NOON - timedelta(days=9)}],
)
def test_the_database_refuses_a_token_that_makes_no_sense(wrong):
    row = ApiToken(**{"name": "ci", "prefix": "abcdefgh", "secret_hash": "0" * 64, "created_at": NOON} | wrong)
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save(force_insert=True)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer nonsense", "Bearer pw_a_b"])
def test_without_a_token_the_answer_is_401_and_says_what_to_send(api, header):
    api.token = ""
    reply = api.get("/instances", **({} if header is None else {"Authorization": header}))

    problem_of(reply, 401)
    assert reply["WWW-Authenticate"].startswith('Bearer realm="pulsewatch"')


def test_a_token_with_another_secret_revoked_or_expired_is_401(api, holder):
    other = holder()
    api.token = other.token[:12] + api.token[12:]
    assert "not known" in problem_of(api.get("/instances"), 401)["detail"]

    services.revoke_token(token=ApiToken.objects.get(prefix=other.token[3:11]), actor=CI)
    assert "was revoked" in problem_of(other.get("/instances"), 401)["detail"]

    _, brief = make(scopes=Scope.values, lasting=timedelta(hours=1))
    other.token = brief
    assert other.get("/instances").status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61), tick=False):
        assert "expired" in problem_of(other.get("/instances"), 401)["detail"]


def test_the_wrong_scope_is_403_and_writing_includes_reading(holder):
    client = holder("inventory:read")
    body = {"name": "web-1", "environment": "production"}
    assert client.get("/instances").status_code == 200
    assert problem_of(client.post("/instances", body), 403)["scope"] == "inventory:write"
    assert problem_of(client.get("/backups"), 403)["scope"] == "backups:read"

    assert holder("inventory:write").get("/instances").status_code == 200


def test_writes_are_audited_as_the_token_with_its_address(holder):
    client = holder("inventory:write")
    name = ApiToken.objects.get(prefix=client.token[3:11]).name
    client.post("/instances", {"name": "web-1", "environment": "production"})

    entry = AuditEntry.objects.of("instance:web-1").get()
    assert (entry.actor_kind, entry.actor, entry.ip_address) == ("token", name, "127.0.0.1")
    assert entry.request_id


def test_the_last_use_is_written_once_a_minute(api):
    row = ApiToken.objects.get()
    with time_machine.travel(NOON, tick=False) as clock:
        for seconds, noted in ((0, 0), (30, 0), (61, 61)):
            clock.move_to(NOON + timedelta(seconds=seconds))
            api.get("/instances")
            row.refresh_from_db()
            assert row.last_used_at == NOON + timedelta(seconds=noted)


def test_a_request_costs_one_query_for_its_token(api, django_assert_num_queries):
    api.get("/services")
    with django_assert_num_queries(2):
        api.get("/services")


def test_more_requests_than_the_limit_are_429_until_the_minute_ends(api, holder, settings):
    settings.API_RATE_LIMIT = 3
    with time_machine.travel(NOON + timedelta(seconds=15), tick=False) as clock:
        assert [api.get("/services").status_code for _ in range(4)] == [200, 200, 200, 429]
        reply = api.get("/services")
        assert reply["Retry-After"] == "45"
        assert "API_RATE_LIMIT" in problem_of(reply, 429)["detail"]
        assert holder().get("/services").status_code == 200, "others are not held up"
        clock.shift(timedelta(seconds=46))
        assert api.get("/services").status_code == 200
    settings.API_RATE_LIMIT = 0
    assert api.get("/services").status_code == 200


def test_without_redis_requests_pass_and_wait_for_it_only_once(api, settings, monkeypatch, caplog, redis_server):
    settings.REDIS_URL, settings.API_RATE_LIMIT = redis_server.url, 1
    monkeypatch.setattr(access._counter, "paused_until", 0.0)
    redis_server.freeze()
    try:
        with caplog.at_level(logging.WARNING):
            assert [api.get("/services").status_code for _ in range(3)] == [200, 200, 200]
    finally:
        redis_server.thaw()
    assert caplog.text.count("are not counted") == 1
    monkeypatch.setattr(access._counter, "paused_until", 0.0)
    assert [api.get("/services").status_code for _ in range(2)] == [200, 429]


def test_neither_log_nor_answer_shows_the_token(api, settings):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    try:
        replies = [
            api.get("/instances"),
            api.get(f"/instances/{api.token}"),
            api.get(f"/instances?cursor={api.token}"),
            api.post("/instances", {"name": api.token, "environment": "production", "x": api.token}),
            api.get("/instances", X_Note=api.token, Authorization=f"Token {api.token}"),
        ]
        logging.getLogger("apps.api").error("It failed for %s", f"Bearer {api.token}", exc_info=ValueError(api.token))
    finally:
        logging.getLogger().removeHandler(handler)

    assert written.getvalue().count("answered") == len(replies)
    for text in (written.getvalue(), *(reply.content.decode() for reply in replies)):
        assert api.token not in text
        assert api.token[12:] not in text


@pytest.mark.django_db
def test_the_command_prints_the_token_alone_and_lists_and_revokes_it(api):
    out, err = io.StringIO(), io.StringIO()
    call_command(
        "token", "create", "ci", "--scope", "health:write,builds:read", "--expires", "90d", stdout=out, stderr=err
    )

    assert len(out.getvalue().splitlines()) == 1
    api.token = out.getvalue().strip()
    assert api.get("/health-checks").status_code == 200
    assert "It expires at" in err.getvalue()
    assert api.token not in err.getvalue()

    listed = io.StringIO()
    call_command("token", "list", stdout=listed)
    assert "ci  builds:read,health:write  used" in listed.getvalue()
    assert f"expires {datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}" in listed.getvalue()
    assert api.token[12:] not in listed.getvalue()

    call_command("token", "revoke", "ci", stdout=listed)
    assert api.get("/health-checks").status_code == 401


@pytest.mark.django_db
def test_a_token_lasts_a_year_unless_it_is_told_to_last_for_ever(api):
    for name, options in (("year", []), ("ever", ["--expires", "never"])):
        err = io.StringIO()
        call_command("token", "create", name, "--scope", "health:read", *options, stdout=io.StringIO(), stderr=err)
        assert ("It never expires." in err.getvalue()) is (name == "ever")

    year, ever = ApiToken.objects.get(name="year"), ApiToken.objects.get(name="ever")
    assert year.expires_at - year.created_at == timedelta(days=365)
    assert ever.expires_at is None
    listed = io.StringIO()
    call_command("token", "list", stdout=listed)
    (line,) = (line for line in listed.getvalue().splitlines() if line.endswith("expires never"))
    assert line.startswith(ever.prefix)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["create", "ci", "--scope", "all"], "Choose one or more"),
        (["create", "ci", "--scope", "health:read", "--expires", "soon"], "such as 12h"),
        (["revoke", "ci"], "no such token"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, reason):
    with pytest.raises(CommandError, match=reason):
        call_command("token", *arguments)
