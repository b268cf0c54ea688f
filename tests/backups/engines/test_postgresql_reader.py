"""What is read out of a pg_dump, however it is cut, and what is not believed."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.backups.engines import postgresql_reader
from apps.backups.engines.base import Content, EngineError, Objects
from apps.backups.engines.postgresql_reader import Bag, PostgreSQLReader, Rows

FAKE = "\n--\n-- Name: fake; Type: TABLE; Schema: public; Owner: o\n--\n\nCREATE TABLE public.fake (\n);\n"
END = "\n--\n-- PostgreSQL database dump complete\n--\n\n"


def section(name: str, kind: str, body: str) -> str:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: public; Owner: o\n--\n\n{body}\n\n\n"


def rows(table: str, *lines: str) -> str:
    body = f"COPY {table} (id, words) FROM stdin;\n" + "".join(f"{line}\n" for line in lines) + "\\."
    return f"--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: o\n--\n\n{body}\n\n\n"


def dump(*sections: str, token: str = "aBc", version: str = "15.18") -> bytes:
    start = (
        f"--\n-- PostgreSQL database dump\n--\n\n\\restrict {token}\n\n-- Dumped from database version {version}\n"
        f"-- Dumped by pg_dump version {version}\n\nSET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n\n"
    )
    return (start + "".join(sections) + END.lstrip("\n") + f"\\unrestrict {token}\n\n").encode()


TABLE = section(
    "t", "TABLE", "CREATE TABLE public.t (\n    id integer,\n    words text DEFAULT E'it\\\\''s; --'::text\n);"
)
ODD = section("x", "TABLE", 'CREATE TABLE crm."a ""b"" ; \'c" (\n    id integer,\n    words text\n);')
FUNCTION = section(
    "f()", "FUNCTION", f"CREATE FUNCTION public.f() RETURNS text\n    AS $_$ ' \" $$ {FAKE}{END} $1 $_$;"
)
SAMPLE = dump(
    TABLE,
    ODD,
    FUNCTION,
    section("v", "VIEW", f"CREATE VIEW public.v AS\n SELECT '{FAKE}{END}'::text AS a, 5 - 3 AS b, E'\\\\' AS c;"),
    section("TABLE t", "COMMENT", f"COMMENT ON TABLE public.t IS 'it''s {FAKE}';"),
    section("m", "MATERIALIZED VIEW", "CREATE MATERIALIZED VIEW public.m AS\n SELECT 1\n  WITH NO DATA;"),
    section("p()", "PROCEDURE", "CREATE PROCEDURE public.p()\n    BEGIN ATOMIC\n SELECT $1;\n SELECT ($2 - $1);\nEND;"),
    rows("public.t", "1\ta\\nb", "2\t\\N", "2\t\\N", "3\t" + FAKE.replace("\n", "\\n"), "\\\\.\t", "", "\\\\."),
    rows('crm."a ""b"" ; \'c"'),
    section(
        "t tr", "TRIGGER", "CREATE TRIGGER tr BEFORE UPDATE OF id ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();"
    ),
    section("t tr", "TRIGGER", "ALTER TABLE public.t DISABLE TRIGGER tr;"),
)


def read(data: bytes, cuts: Iterable[int] = ()) -> Content:
    reader = PostgreSQLReader()
    start = 0
    for cut in (*sorted(cuts), len(data)):
        reader.feed(memoryview(data)[start:cut])
        start = cut
    return reader.close()


WHOLE = read(SAMPLE)


def test_the_sample_is_read_for_what_it_is() -> None:
    assert WHOLE.complete
    assert WHOLE.objects == Objects(tables=2, views=2, routines=2, triggers=1)
    assert set(WHOLE.tables) == {"t", 'crm.a "b" ; \'c'}


@given(st.lists(st.integers(0, len(SAMPLE))))
def test_the_content_does_not_depend_on_the_blocks(cuts: list[int]) -> None:
    assert read(SAMPLE, cuts) == WHOLE


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64])
def test_the_content_does_not_depend_on_the_size_of_blocks(size: int) -> None:
    assert read(SAMPLE, range(size, len(SAMPLE), size)) == WHOLE


def test_a_dump_cut_anywhere_before_its_end_marker_is_incomplete() -> None:
    marked = SAMPLE.rindex(b"dump complete\n") + len(b"dump complete\n")
    assert read(SAMPLE[:marked]).complete
    for cut in range(marked):
        assert not read(SAMPLE[:cut]).complete, SAMPLE[max(0, cut - 40) : cut]


@pytest.mark.parametrize(
    "behind", ["SELECT 1;", "SELECT 1", TABLE, "\\! true\n", "COPY public.t (id) FROM stdin;\n1\n"]
)
def test_a_dump_with_something_behind_its_end_marker_is_incomplete(behind: str) -> None:
    assert not read(SAMPLE + behind.encode()).complete


@given(st.binary(min_size=1, max_size=3), st.integers(0, len(SAMPLE)))
def test_no_damage_brings_the_reader_down(junk: bytes, at: int) -> None:
    assert isinstance(read(SAMPLE[:at] + junk + SAMPLE[at:]), Content)


def test_tokens_versions_owners_and_privileges_do_not_count() -> None:
    sections = (TABLE, rows("public.t", "1\tx"))
    server = (
        section("t", "TABLE", 'ALTER TABLE public.t OWNER TO "some; body";'),
        section("TABLE t", "ACL", "GRANT SELECT ON TABLE public.t TO reader;"),
        section("x", "DEFAULT ACL", "ALTER DEFAULT PRIVILEGES FOR ROLE o GRANT SELECT ON TABLES TO reader;"),
        "SET default_tablespace = fast;\n\n",
    )
    assert read(dump(*sections)) == read(dump(*server[::-1], *sections, *server, token="other", version="17.2"))


def test_the_order_of_rows_and_of_definitions_does_not_count() -> None:
    one = dump(TABLE, ODD, FUNCTION, rows("public.t", "1\ta", "2\tb", "3\tc"))
    other = dump(FUNCTION, ODD, TABLE, rows("public.t", "3\tc", "1\ta", "2\tb"))
    assert read(one) == read(other)


@pytest.mark.parametrize(
    "lines",
    [
        ("1\ta", "2\tb", "2\tb", "2\tb"),
        ("1\ta", "2\tb"),
        ("1\tb", "2\ta", "2\tb"),
        ("1\ta2\tb", "", "2\tb"),
        ("1\ta", "2\tb", "2\tB"),
        ("1\ta", "2\tb", "2\tb", ""),
        (),
    ],
)
def test_a_row_more_a_row_less_or_a_row_altered_counts(lines: tuple[str, ...]) -> None:
    before = read(dump(TABLE, rows("public.t", "1\ta", "2\tb", "2\tb")))
    assert read(dump(TABLE, rows("public.t", *lines))).tables["t"] != before.tables["t"]


def test_an_empty_table_differs_from_one_without_its_rows() -> None:
    assert read(dump(TABLE, rows("public.t"))).tables["t"] != read(dump(TABLE)).tables["t"]


def test_a_trigger_on_a_view_makes_no_table_of_it() -> None:
    view = section("v", "VIEW", "CREATE VIEW public.v AS\n SELECT 1;")
    trigger = section(
        "v t", "TRIGGER", "CREATE TRIGGER t INSTEAD OF INSERT ON public.v FOR EACH ROW EXECUTE FUNCTION f();"
    )
    content = read(dump(view, trigger))
    assert (content.tables, content.objects) == ({}, Objects(views=1, triggers=1))


def test_names_that_only_quotes_tell_apart_stay_apart() -> None:
    names = ("crm.t", 'public."crm.t"', 'public."order"', 'public."a""b"')
    sections = [section("t", "TABLE", f"CREATE TABLE {name} (\n);") for name in names]
    assert set(read(dump(*sections)).tables) == {"crm.t", 'public."crm.t"', "order", 'a"b'}


def test_a_statement_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_reader, "STATEMENT_BYTES", 1000)
    with pytest.raises(EngineError, match=r"a statement of more than \d+ MiB"):
        read(dump(section("f()", "FUNCTION", "CREATE FUNCTION public.f() AS $$" + "x" * 2000)))


@given(st.lists(st.binary(max_size=40).map(lambda row: row.replace(b"\n", b" "))), st.randoms(), st.integers(1, 50))
def test_rows_have_one_sum_in_any_order_and_any_pieces(lines: list[bytes], chance: random.Random, size: int) -> None:
    ordered, shuffled, single = Rows(), Rows(), Bag()
    ordered.feed(b"".join(b"\n" + line for line in lines))
    chance.shuffle(lines)
    text = b"".join(b"\n" + line for line in lines)
    for start in range(0, len(text), size):
        shuffled.feed(text[start : start + size])
    for line in lines:
        single.add([postgresql_reader.blake2b(line).digest()])
    ordered.close()
    shuffled.close()
    assert ordered.bag.digest() == shuffled.bag.digest() == single.digest()


def test_a_row_longer_than_any_block_is_digested_without_being_kept() -> None:
    rows_in_pieces, whole = Rows(), Rows()
    row = random.Random(1).randbytes(3 << 20).replace(b"\n", b" ")
    whole.feed(b"\n" + row)
    for start in range(0, len(row), 1000):
        rows_in_pieces.feed((b"\n" if start == 0 else b"") + row[start : start + 1000])
    whole.close()
    rows_in_pieces.close()
    assert rows_in_pieces.bag.digest() == whole.bag.digest()
