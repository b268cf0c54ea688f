"""Endpoints out of and into files."""

import csv
import io
import time
import tracemalloc

import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.audit import Actor
from apps.core.errors import Conflict
from apps.core.models import AuditEntry
from apps.inventory import exchange, parsers, targets
from apps.inventory.exchange import FileRefused
from apps.inventory.models import Endpoint, Workload
from tests.factories import EndpointFactory, ServiceFactory, WorkloadFactory

ACTOR = Actor.automation("test")
HEAD = "service,environment,method,path"


def take(text: str | bytes, *, kind: str = "csv", dry_run: bool = False) -> exchange.Imported:
    content = text if isinstance(text, bytes) else text.encode()
    return exchange.import_endpoints(content=content, kind=kind, actor=ACTOR, dry_run=dry_run)


def refused(text: str | bytes, *, kind: str = "csv") -> list[str]:
    def everything():
        return list(Endpoint.objects.values()), AuditEntry.objects.count()

    before = everything()
    with pytest.raises(FileRefused) as error:
        take(text, kind=kind)
    assert everything() == before
    return list(map(str, error.value.faults))


@pytest.fixture
def shop(db):
    return WorkloadFactory(service=ServiceFactory(slug="shop"), base_url="https://shop.example")


@pytest.mark.parametrize("kind", ["csv", "yaml"])
def test_what_was_exported_is_imported_elsewhere_as_it_was_and_again_without_a_change(kind, shop):
    EndpointFactory(workload=shop, endpoint_path="/cart?x=1,2", name="=cmd|' /C calc'!A0", front_end=True, slow_ms=300)
    EndpointFactory(
        workload=shop, endpoint_path="/b", http_method="POST", request_body='{"a":\r\n "ü;\t"}', timeout_seconds=0.5
    )
    targets.save_endpoint(
        endpoint=Endpoint(workload=shop, endpoint_path="/secret"), actor=ACTOR, headers={"X-Key": "hunter2hunter2"}
    )
    columns = ("http_method", "endpoint_path", *exchange.SETTINGS)
    before = list(Endpoint.objects.order_by("endpoint_path").values(*columns))

    text = exchange.export_endpoints(kind=kind, endpoints=Endpoint.objects.all())

    assert "hunter2" not in text
    same = take(text, kind=kind)
    assert (same.created, same.changed, same.unchanged) == (0, 0, 3)
    Endpoint.objects.all().delete()
    made = take(text, kind=kind)
    assert (made.created, made.changed, made.unchanged, made.unwatched) == (3, 0, 0, [])
    assert list(Endpoint.objects.order_by("endpoint_path").values(*columns)) == before
    assert exchange.export_endpoints(kind=kind, endpoints=Endpoint.objects.all()) == text.replace(
        "true\r\n", "false\r\n"
    ).replace("has_secret_headers: true", "has_secret_headers: false")


def test_an_exported_cell_is_never_a_formula_and_yaml_is_what_yaml_readers_expect(shop):
    EndpointFactory(workload=shop, endpoint_path="/a", name="=1+1", body_contains="-2", request_body="@x")

    sheet = list(csv.DictReader(io.StringIO(exchange.export_endpoints(kind="csv", endpoints=Endpoint.objects.all()))))
    text = exchange.export_endpoints(kind="yaml", endpoints=Endpoint.objects.all())

    assert [sheet[0][name] for name in ("name", "body_contains", "request_body")] == ["'=1+1", "'-2", "'@x"]
    (row,) = yaml.safe_load(text)["endpoints"]
    assert (row["name"], row["expected_status"], row["interval_seconds"], row["enabled"]) == ("=1+1", "200", 60, True)


def test_files_of_spreadsheets_are_read_with_their_marks_separators_and_line_ends(shop):
    text = "\ufeffService;Environment;Path;Timeout seconds;Enabled;\r\nshop;Production;/a;0,5;YES;\r\n;;;;;\r\n"

    assert take(text.encode()).created == 1

    row = Endpoint.objects.get()
    assert (row.http_method, row.name, row.timeout_seconds, row.enabled) == ("GET", "GET /a", 0.5, True)


def test_a_missing_column_leaves_a_setting_and_an_empty_cell_takes_it_back(shop):
    row = EndpointFactory(workload=shop, endpoint_path="/a", slow_ms=300, body_contains="ok", name="Cart")

    told = take(f"{HEAD},body_contains\nshop,production,GET,/a,\n")

    row.refresh_from_db()
    assert (told.changed, row.slow_ms, row.body_contains, row.name) == (1, 300, "", "Cart")
    entry = AuditEntry.objects.of(f"endpoint:{row.pk}").get()
    assert (entry.before, entry.after, entry.reason) == (
        {"body_contains": "ok"},
        {"body_contains": ""},
        "import of a file",
    )


def test_a_dry_run_says_what_would_become_of_the_file_and_does_nothing(shop):
    EndpointFactory(workload=shop, endpoint_path="/a")

    told = take(f"{HEAD},slow_ms\nshop,production,GET,/a,300\nshop,staging,GET,/b,\n", dry_run=True)

    assert (told.created, told.changed, told.dry_run) == (1, 1, True)
    assert told.workloads == told.unwatched == ["shop/staging"]
    assert Endpoint.objects.get().slow_ms == 1000
    assert not AuditEntry.objects.exists()
    assert not Workload.objects.filter(environment="staging").exists()


def test_a_workload_that_is_missing_is_added_with_its_endpoints(shop):
    told = take("- {service: shop, environment: staging, path: /b}\n", kind="yaml")

    assert (told.created, told.workloads, told.unwatched) == (1, ["shop/staging"], ["shop/staging"])
    assert Endpoint.objects.get().workload == Workload.objects.get(service__slug="shop", environment="staging")
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["workload.create", "endpoint.create"]


def test_every_wrong_row_is_named_with_column_and_reason_and_nothing_is_imported(shop):
    EndpointFactory(workload=shop, name="Taken")
    text = (
        f"{HEAD},name,expected_status,interval_seconds,timeout_seconds,enabled,colour\n"
        "shop,production,GET,/fine,,,,,,\n"
        "nobody,production,GET,/a,,,,,,\n"
        "shop,moon,GET,/a,,,,,,\n"
        "shop,production,FETCH,/a,,,,,,\n"
        "shop,production,GET,a,,,,,,\n"
        "shop,production,GET,/a,,700,,,,red\n"
        "shop,production,GET,/b,,,ten,,,\n"
        "shop,production,GET,/c,,,10,20,,\n"
        "shop,production,GET,/d,,,,nan,,\n"
        "shop,production,GET,/e,,,,,perhaps,\n"
        "shop,production,GET,/f,taken,,,,,\n"
        "shop,production,GET,/g,,,,,,\n"
        "shop,production,GET,/g,,,,,,\n"
    )

    assert refused(text) == [
        "row 2, colour: This column is unknown; known are " + ", ".join((*exchange.KEY, *exchange.SETTINGS)) + ".",
        "row 3, service: There is no service of this name: add it in the console first.",
        "row 4, environment: Enter one of development, staging, production.",
        "row 5, method: Enter one of GET, POST, PUT, PATCH, DELETE, HEAD.",
        "row 6, path: Enter a path that starts with one / and has no spaces and no #, such as /api/orders?limit=1.",
        "row 7, expected_status: Enter HTTP status codes from 100 to 599, such as 200, 200-299 or 200,301-308.",
        "row 8, interval_seconds: Enter a whole number, such as 60.",
        "row 9, timeout_seconds: The time-out must not be longer than the interval.",
        "row 10, timeout_seconds: Enter a number, such as 0.5 or 10.",
        "row 11, enabled: Enter true or false.",
        "row 12, name: Another endpoint of the workload has this name: leave one of them out, or name it differently.",
        "row 14, name: Row 13 has this name: leave one of them out, or name it differently.",
    ]


def test_of_many_wrong_rows_twenty_are_named_and_all_are_counted(shop):
    with pytest.raises(FileRefused, match="and 10 more") as error:
        take(f"{HEAD}\n" + "shop,moon,GET,/a\n" * 30)

    assert (len(error.value.faults), error.value.count) == (20, 30)


def test_endpoints_of_one_method_and_path_are_told_apart_by_their_names(shop):
    for name in ("one", "two"):
        EndpointFactory(workload=shop, endpoint_path="/a", name=name)

    assert take(f"{HEAD},name,slow_ms\nshop,production,GET,/a,two,300\n").changed == 1
    assert Endpoint.objects.get(name="two").slow_ms == 300
    assert take(f"{HEAD},name\nshop,production,GET,/a,three\n").created == 1
    assert refused(f"{HEAD}\nshop,production,GET,/a\n") == [
        "row 2, name: There are 3 endpoints of this method and path: name the one that is meant."
    ]


def test_the_only_endpoint_of_a_path_may_be_given_another_name(shop):
    row = EndpointFactory(workload=shop, endpoint_path="/a", name="old")

    assert take(f"{HEAD},name\nshop,production,GET,/a,new\n").changed == 1

    row.refresh_from_db()
    assert row.name == "new"


@pytest.mark.parametrize(
    ("kind", "content", "fault"),
    [
        ("csv", b"", "The file is empty"),
        ("csv", b"path,path\n", "Column 2 has the name of another"),
        ("csv", b"path\n/a,/b\n", "put quotes around a cell"),
        ("csv", b'path\n"/a\n', "This is not CSV"),
        ("csv", b"path\n\xff\n", "row 2: The file is not UTF-8"),
        ("csv", b"path\n/\0\n", "NUL"),
        ("csv", b"x" * (1024 * 1024 + 1), "larger than 1 MiB"),
        ("csv", b"path\n" + b"/a\n" * 5001, "more than 5,000 rows"),
        ("yaml", b"", "The file is empty"),
        ("yaml", b"path: /a\n", "The file must be a list"),
        ("yaml", b"- path: /a\n  path: /b\n", "row 2: A name stands twice"),
        ("yaml", b"- path: [/a]\n", "Names and values must be plain"),
        ("yaml", b"- /a\n", "Each item of the list must be a mapping"),
        ("yaml", b"endpoints: []\nother: 1\n", "nothing else may stand"),
        ("yaml", b"- path: /a\n---\n- path: /b\n", "more than one document"),
        ("yaml", b"- !!python/object/apply:os.system {path: /a}\n", "Tags (! or !!) are not read"),
        ("yaml", b'- path: "/a\n', "This is not YAML"),
        ("yaml", b"- path: \x07\n", "a character that YAML does not allow"),
        ("yaml", b"- &a {path: /a}\n- *a\n", "Anchors and aliases are not read"),
        ("yaml", b'- path: "/\\uD800"\n', "This is not YAML"),
        ("yaml", b"[" * 1_000_000, "Each item of the list must be a mapping"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place_and_the_reason(kind, content, fault, db):
    (told,) = refused(content, kind=kind)

    assert fault in told


def test_an_alias_bomb_costs_neither_time_nor_memory(db):
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(ord("a"), ord("i"))
    )
    tracemalloc.start()

    with pytest.raises(FileRefused):
        take(bomb, kind="yaml")

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_five_thousand_rows_take_seconds_and_few_statements(shop):
    rows = "".join(f"shop,production,GET,/api/{n},{1000 + n % 3}\n" for n in range(5000))
    text, began = f"{HEAD},slow_ms\n{rows}", time.process_time()

    with CaptureQueriesContext(connection) as asked:
        assert take(text).created == 5000
    assert len(asked) < 60
    assert take(text).unchanged == 5000

    assert time.process_time() - began < 8
    assert AuditEntry.objects.filter(action="endpoint.create").count() == 5000


@pytest.mark.engine
def test_names_that_only_the_database_finds_equal_are_refused_as_a_whole(shop):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite tells é from e")

    with pytest.raises(Conflict, match="Nothing was imported"):
        take(f"{HEAD},name\nshop,production,GET,/a,caf\u00e9\nshop,production,GET,/b,cafe\n")

    assert not Endpoint.objects.exists()


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
names = st.builds(str.__add__, st.sampled_from(["", "=", "+", "-", "@", "'=", "''@", "'", "\t", "\r"]), texts)
rows = st.lists(st.fixed_dictionaries({"path": texts.map("/{}".format), "name": names}), max_size=5)


@settings(max_examples=200)
@given(rows)
def test_any_text_comes_back_from_a_csv_file_as_it_was(wanted):
    text = parsers.write(wanted, kind="csv", columns=("path", "name"))

    found = [row.cells for row in parsers.read(text.encode(), kind="csv")]

    assert found == wanted
    assert not any(line.startswith(("=", "+", "-", "@")) for row in csv.reader(io.StringIO(text)) for line in row)


@settings(max_examples=100)
@given(rows)
def test_any_text_comes_back_from_a_yaml_file_as_it_was(wanted):
    text = parsers.write(wanted, kind="yaml", columns=("path", "name"))

    assert [row.cells for row in parsers.read(text.encode(), kind="yaml")] == wanted


def test_a_line_break_at_the_end_of_a_value_is_not_taken_with_it(shop):
    take(f'- {{service: shop, environment: {shop.environment}, path: "/a\\n"}}\n', kind="yaml")
    take(f'service,environment,path\nshop,{shop.environment},"/b\n"\n')
    assert sorted(Endpoint.objects.values_list("endpoint_path", flat=True)) == ["/a", "/b"]
