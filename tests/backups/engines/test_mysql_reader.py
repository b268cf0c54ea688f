"""What the reader of MySQL's dumps sees, on text in both vendors' manner, cut anywhere."""

import hashlib
import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.backups.engines.base import Content, Objects
from apps.backups.engines.mysql_reader import MySQLReader
from apps.backups.engines.mysql_sections import Kind, Role, Sections, unquoted

FAKE = (
    "\n--\n-- Table structure for table `fake`\n--\n\nLOCK TABLES `fake` WRITE;\nUNLOCK TABLES;\n"
    "/*!50106 CREATE*/ /*!50106 EVENT `fake` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE DO SELECT 1\n"
    "-- Dump completed\n"
)
IN_COMMENT = FAKE.replace("*/", "")  # which would end it


def table(name: str, rows: str = "(1,'a\\n--\\n-- x')", triggers: str = "") -> str:
    return (
        f"\n--\n-- Table structure for table `{name}`\n--\n\nDROP TABLE IF EXISTS `{name}`;\n"
        f"CREATE TABLE `{name}` (\n  `id` int COMMENT 'it''s `odd` -- '''\n) /* {IN_COMMENT} */;\n"
        f"\n--\n-- Dumping data for table `{name}`\n--\n-- ORDER BY:  `id`\n\nLOCK TABLES `{name}` WRITE;\n"
        f"/*!40000 ALTER TABLE `{name}` DISABLE KEYS */;\nINSERT INTO `{name}` VALUES {rows};\n"
        f"/*!40000 ALTER TABLE `{name}` ENABLE KEYS */;\nUNLOCK TABLES;\n{triggers}"
    )


def body(kind: str, text: str, mode: str = "") -> str:
    return (
        f"/*!50003 SET sql_mode              = '{mode}' */ ;\nDELIMITER ;;\n"
        f"/*!50003 CREATE*/ /*!50017 DEFINER=`me`@`%`*/ /*!50003 {kind} `x` {text} */;;\nDELIMITER ;\n"
        "/*!50003 SET sql_mode              = @saved_sql_mode */ ;\n"
    )


def event(name: str, status: str, text: str, schema: str = "shop") -> str:
    return (
        f"/*!50106 DROP EVENT IF EXISTS `{name}` */;;\nDELIMITER ;;\n"
        f"ALTER DATABASE `{schema}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci ;;\n"
        "/*!50003 SET sql_mode              = '' */ ;;\n"
        f"/*!50106 CREATE*/ /*!50117 DEFINER=`o``k`@`%`*/ /*!50106 EVENT `{name}` ON SCHEDULE EVERY '1:30' HOUR_MINUTE "
        f"STARTS '2037-01-01 00:00:00' ON COMPLETION NOT PRESERVE {status} DO {text} */ ;;\n"
    )


def dump(*, schema: str = "shop", version: str = "10.11.19", status: str = "ENABLE", tables: str = "") -> bytes:
    sandbox = "/*M!999999\\- enable the sandbox mode */ \n" if version >= "10.11.8" else ""
    trigger = body("TRIGGER", f"BEGIN SET @a = 'it''s \\' ;'; -- it's\n /* {IN_COMMENT} */ END")
    return (
        f"{sandbox}-- MariaDB dump 10.19  Distrib {version}-MariaDB, for Linux (x86_64)\n--\n"
        f"-- Host: o'hara    Database: {schema}\n-- ------------------------------------------------------\n"
        f"-- Server version\t{version}-MariaDB\n\n/*!40101 SET NAMES utf8mb4 */;\n"
        "\n--\n-- Temporary table structure for view `v`\n--\n\nDROP TABLE IF EXISTS `v`;\n"
        + (tables or table("a") + table("t``ick", triggers=trigger) + table("z", rows="(1,'" + "x" * 9000 + "')"))
        + f"\n--\n-- Dumping events for database '{schema}'\n--\n/*!50106 SET @save_time_zone= @@TIME_ZONE */ ;\n"
        + event(
            "e ON COMPLETION PRESERVE ENABLE", status, f"BEGIN SELECT ';;'; # it's {FAKE.splitlines()[2]}\n END", schema
        )
        + event("e2", "DISABLE", "SELECT 1", schema)
        + "DELIMITER ;\n/*!50106 SET TIME_ZONE= @save_time_zone */ ;\n"
        f"\n--\n-- Dumping routines for database '{schema}'\n--\n"
        f"ALTER DATABASE `{schema}` CHARACTER SET latin1 COLLATE latin1_swedish_ci ;\n"
        + body(
            "PROCEDURE",
            f"BEGIN\n--\nSELECT '{FAKE}';\n-- it's\n/*M!100100 SELECT 'a*/b' */; "
            f"SELECT \"{FAKE}\", '{FAKE}'; /* ;;\nDELIMITER ;\n{IN_COMMENT} */ END",
        )
        + body("FUNCTION", f"BEGIN SELECT '\\', '{FAKE}'; END", mode="ANSI_QUOTES,NO_BACKSLASH_ESCAPES")
        + body("FUNCTION", "BEGIN SELECT 'x' AS \"a\\\" ; END", mode="ANSI_QUOTES")
        + "\n--\n-- Final view structure for view `v`\n--\n\n/*!50001 VIEW `v` AS select 1 AS `x` */;\n"
        "/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\n/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed\n"
    ).encode()


def content(data: bytes, size: int = 1 << 20) -> Content:
    reader = MySQLReader()
    for start in range(0, len(data), size):
        reader.feed(memoryview(data)[start : start + size])
    return reader.close()


def test_every_object_is_counted_and_no_text_that_looks_like_a_mark_is() -> None:
    seen = content(dump())

    assert seen.objects == Objects(tables=3, views=1, routines=3, triggers=1, events=2)
    assert list(seen.tables) == ["a", "t`ick", "z"]
    assert seen.complete


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 4095, 4096, 4097, 9999])
def test_the_size_of_the_blocks_changes_nothing(size: int) -> None:
    assert content(dump(), size) == content(dump())


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(dump())), max_size=30))
def test_any_cut_of_the_same_bytes_gives_the_same_content(cuts: list[int]) -> None:
    data, reader = dump(), MySQLReader()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        reader.feed(memoryview(data)[start:end])

    assert reader.close() == content(data)


@pytest.mark.parametrize("size", [1, 500, 1 << 20])
def test_the_sections_together_are_the_dump(size: int) -> None:
    data, sections = dump(), Sections()
    pieces = [
        bytes(piece)
        for start in range(0, len(data), size)
        for _, _, piece in sections.feed(memoryview(data)[start : start + size])
    ]
    pieces += [bytes(piece) for _, _, piece in sections.close()]

    assert b"".join(pieces) == data


def test_names_of_schemas_versions_and_the_state_of_events_do_not_count() -> None:
    copy = dump(schema="pulsewatch_drill_`1", version="10.6.5", status="DISABLE ON SLAVE").replace(b"`1`", b"``1`")

    assert content(copy) == content(dump())


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"'a\\n", b"'b\\n", 1),
        lambda data: data.replace(b"`id` int", b"`id` bigint", 1),
        lambda data: data.replace(b"LOCK TABLES `a` WRITE;\n/*", b"LOCK TABLES `a` WRITE;\n /*", 1),
    ],
    ids=["row", "column", "space"],
)
def test_a_change_in_a_table_changes_its_digest_alone(change: Callable[[bytes], bytes]) -> None:
    before, after = content(dump()), content(change(dump()))

    assert [name for name in before.tables if before.tables[name] != after.tables[name]] == ["a"]
    assert (after.other, after.objects, after.complete) == (before.other, before.objects, True)


def test_a_change_in_a_trigger_is_its_tables_and_one_in_a_routine_is_nobodys() -> None:
    before = content(dump())
    trigger = content(dump().replace(b"SET @a", b"SET @b"))
    routine = content(dump().replace(b"SELECT '\\'", b"SELECT  '\\'"))

    assert [name for name in before.tables if before.tables[name] != trigger.tables[name]] == ["t`ick"]
    assert routine.tables == before.tables
    assert routine.other != before.other


def test_only_the_end_mark_as_the_last_line_makes_a_dump_complete() -> None:
    data = dump()

    complete = [end for end in range(len(data) + 1) if end > len(data) - 40 and content(data[:end]).complete]
    assert complete == [len(data)]
    assert not content(data + b"\n").complete
    assert not content(data + b"DROP TABLE a;\n").complete
    assert content(data[:-1] + b" on 2026-01-31  2:00:00\n").complete
    assert not content(b"").complete


def test_no_dump_cut_behind_a_line_that_looks_like_the_end_mark_is_complete() -> None:
    data = dump()
    looks = [match.end() for match in re.finditer(rb"-- Dump completed\n", data)]

    assert len(looks) > 5
    assert [end for end in looks if content(data[:end]).complete] == [len(data)]


def test_an_event_written_in_an_unknown_way_is_not_counted() -> None:
    sections = Sections()
    list(sections.feed(dump().replace(b"EVERY '1:30' HOUR_MINUTE", b"NOW AND THEN", 1)))
    list(sections.close())

    assert (sections.events, sections.strange_events) == (1, 1)


def test_the_states_of_events_and_the_names_of_schemas_are_pieces_of_their_own() -> None:
    sections = Sections()
    pieces = [*sections.feed(dump()), *sections.close()]

    assert [bytes(data) for _, role, data in pieces if role is Role.EVENT_STATUS] == [b"ENABLE", b"DISABLE"]
    assert [bytes(data) for _, role, data in pieces if role is Role.SCHEMA_NAME] == [b"`shop`"] * 3
    assert {section.kind for section, role, _ in pieces if role is Role.EVENT_STATUS} == {Kind.EVENTS}


@pytest.mark.parametrize(("name", "plain"), [(b"`a``b`", "a`b"), (b'"a""b"', 'a"b'), (b"a", "a"), (b"`", "`")])
def test_a_name_loses_its_quotes(name: bytes, plain: str) -> None:
    assert unquoted(name) == plain


@settings(max_examples=30)
@given(st.binary(max_size=3000), st.integers(1, 500))
def test_any_bytes_at_all_are_read_without_an_error(noise: bytes, size: int) -> None:
    data = dump()[:7000] + noise
    assert content(data, size) == content(data)


def test_reading_keeps_up_with_memory(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(1)
    row = b"(%d,'usr_000000000011','updated','it\\'s','line\\nbreak','2025-01-29 08:43:44','%s')"
    rows = [row % (number, chance.randbytes(60).hex().encode()) for number in range(25_000)]
    tables = "".join(table(f"t{i}", b",\n".join(rows).decode()) for i in range(12))
    block = memoryview(dump(tables=tables))
    size = 1 << 20

    def fastest(what: Callable[[], object]) -> float:
        """Seconds of this process alone: others use the machine too."""
        times = []
        for _ in range(5):
            start = time.process_time()
            what()
            times.append(time.process_time() - start)
        return min(times)

    def read() -> None:
        content(block)  # type: ignore[arg-type]  # as good as bytes here

    def digest() -> None:
        sha256 = hashlib.sha256()
        for start in range(0, len(block), size):
            sha256.update(block[start : start + size])

    def split() -> None:
        sections = Sections()
        for start in range(0, len(block), size):
            for _ in sections.feed(block[start : start + size]):
                pass

    reading, digesting, splitting = fastest(read), fastest(digest), fastest(split)
    with capsys.disabled():
        print(
            f"\n{len(block) / 1e6:.0f} MB of dump: {len(block) / reading / 1e6:.0f} MB/s read, of which SHA-256 alone "
            f"{len(block) / digesting / 1e6:.0f} MB/s and splitting alone {len(block) / splitting / 1e6:.0f} MB/s"
        )
    assert splitting < digesting
    assert reading < 2.5 * digesting
