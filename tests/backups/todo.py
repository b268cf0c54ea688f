"""A todo application's database as it is found in the wild, plus every object a dump may lose, filled from a seed.

    build(server.url, seed=7, size=2)

The nine tables of the application and the users they refer to have text keys, counters and the reserved word `order`.
`extras=True` adds one of everything else: views, routines, triggers, events, generated columns, binary values.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta

import MySQLdb

from apps.backups.engines import parse_url

BATCH_ROWS = 500  # in one INSERT: a few hundred KiB
EPOCH = datetime(2025, 1, 1)  # a column without a zone holds it
WORDS = (
    *("plan", "review", "call", "write", "ship", "é", "ß", "漢字", "😀", "it's", '"quoted"', "back\\slash", "tab\t"),
    *("line\nbreak", "--", "dash", "/*", "star", "*/", ";"),
)

TODO_TABLES = (
    "users",
    "categories",
    "tasks",
    "conversations",
    "messages",
    "tags",
    "task_tags",
    "subtasks",
    "attachments",
    "task_activity",
)

_CREATED = "created_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP"
_UPDATED = "updated_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP"
_ID = "id INT AUTO_INCREMENT PRIMARY KEY"
_OWNER = "user_id VARCHAR(64) NOT NULL"
_BY_OWNER = "FOREIGN KEY (user_id) REFERENCES users(id)"
_OF_TASK = "FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE"

_TODO_SCHEMA = (
    f"CREATE TABLE users (id VARCHAR(64) PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, name TEXT, {_CREATED})",
    f"""CREATE TABLE categories ({_ID}, {_OWNER}, name VARCHAR(100) NOT NULL, color VARCHAR(7), icon VARCHAR(50),
        {_CREATED}, {_BY_OWNER}, UNIQUE (user_id, name))""",
    f"""CREATE TABLE tasks ({_ID}, {_OWNER}, title VARCHAR(255) NOT NULL, description TEXT,
        is_completed BOOLEAN DEFAULT FALSE, priority VARCHAR(20), due_date TIMESTAMP NULL, category_id INT,
        recurrence_pattern VARCHAR(50), next_recurrence_date TIMESTAMP NULL, {_CREATED}, {_UPDATED},
        {_BY_OWNER}, FOREIGN KEY (category_id) REFERENCES categories(id))""",
    f"CREATE TABLE conversations ({_ID}, {_OWNER}, {_CREATED}, {_UPDATED}, {_BY_OWNER})",
    f"""CREATE TABLE messages ({_ID}, {_OWNER}, conversation_id INT NOT NULL,
        role VARCHAR(20) COMMENT 'user or assistant', content TEXT NOT NULL, {_CREATED}, {_BY_OWNER},
        FOREIGN KEY (conversation_id) REFERENCES conversations(id))""",
    f"""CREATE TABLE tags ({_ID}, {_OWNER}, name VARCHAR(100) NOT NULL, {_CREATED}, {_BY_OWNER},
        UNIQUE (user_id, name))""",
    f"""CREATE TABLE task_tags (task_id INT NOT NULL, tag_id INT NOT NULL, {_OF_TASK},
        FOREIGN KEY (tag_id) REFERENCES tags(id) ON DELETE CASCADE, PRIMARY KEY (task_id, tag_id))""",
    f"""CREATE TABLE subtasks ({_ID}, parent_task_id INT NOT NULL, title VARCHAR(255) NOT NULL,
        is_completed BOOLEAN DEFAULT FALSE, `order` INT, {_CREATED}, {_UPDATED},
        FOREIGN KEY (parent_task_id) REFERENCES tasks(id) ON DELETE CASCADE)""",
    f"""CREATE TABLE attachments ({_ID}, task_id INT NOT NULL, filename VARCHAR(255) NOT NULL, file_path VARCHAR(500),
        file_size INT, mime_type VARCHAR(100), {_CREATED}, {_OF_TASK})""",
    f"""CREATE TABLE task_activity ({_ID}, task_id INT NOT NULL, {_OWNER},
        action VARCHAR(50) COMMENT 'created, updated, completed …', field VARCHAR(100), old_value TEXT, new_value TEXT,
        {_CREATED}, {_OF_TASK}, {_BY_OWNER})""",
)

# Text that looks like the dump's own marks, in every place where a person may put text.
LOOKALIKE = "\n--\n-- Table structure for table `users`\n--\n\nUNLOCK TABLES;\n-- Dump completed\n"

_EXTRA_TABLES = (
    "CREATE TABLE empty_table (id INT PRIMARY KEY, note TEXT)",
    "CREATE TABLE `no primary key` (a INT, b VARCHAR(20))",
    """CREATE TABLE `имя ☃ 表` (`ключ` INT PRIMARY KEY, `значение ♥` VARCHAR(100), `back``tick` INT, `semi;colon` INT)
        COMMENT='☃ 😀'""",
    """CREATE TABLE `tick``ed -- /* name` (id INT PRIMARY KEY, payload BLOB)""",
    """CREATE TABLE binary_values (id INT PRIMARY KEY, tiny TINYBLOB, medium MEDIUMBLOB, fixed BINARY(16),
        bytes_300 VARBINARY(300))""",
    """CREATE TABLE many_types (id INT PRIMARY KEY, bits BIT(10), flag BIT(1), doc JSON, place POINT,
        money DECIMAL(30,10), kind ENUM('a','b''c','d,e'), choices SET('x','y','z'), year_only YEAR,
        clock TIME(6), stamp DATETIME(6),
        day DATE, exact DOUBLE, small TINYINT UNSIGNED, big BIGINT UNSIGNED, latin VARCHAR(50) CHARACTER SET latin1,
        long_text LONGTEXT)""",
    """CREATE TABLE zero_dates (id INT PRIMARY KEY, day DATE NOT NULL DEFAULT '0000-00-00',
        moment DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00')""",
    """CREATE TABLE `generated` (id INT PRIMARY KEY, first_name VARCHAR(50), last_name VARCHAR(50),
        full_name VARCHAR(120) GENERATED ALWAYS AS (concat(first_name,' ',last_name)) STORED,
        initials VARCHAR(8) GENERATED ALWAYS AS (concat(left(first_name,1),left(last_name,1))) VIRTUAL,
        `after` INT, KEY by_initials (initials))""",
    """CREATE TABLE partitioned (id INT NOT NULL, made DATE NOT NULL, note VARCHAR(50), PRIMARY KEY (id, made))
        PARTITION BY RANGE (YEAR(made)) (PARTITION old VALUES LESS THAN (2024),
        PARTITION recent VALUES LESS THAN (2026), PARTITION later VALUES LESS THAN MAXVALUE)""",
    f"CREATE TABLE lookalikes (id INT PRIMARY KEY COMMENT '{LOOKALIKE}', words TEXT) COMMENT='{LOOKALIKE}'",
)

_EXTRA_OBJECTS = (
    "CREATE VIEW open_tasks AS SELECT id, user_id, title FROM tasks WHERE NOT is_completed",
    # Sorts before the view it reads: a dump that knew no placeholders could not be restored in order.
    "CREATE VIEW a_busy_users AS SELECT user_id, COUNT(*) AS tasks FROM open_tasks GROUP BY user_id",
    "CREATE VIEW `вид ☃` AS SELECT `ключ`, `back``tick` FROM `имя ☃ 表`",
    f"""CREATE PROCEDURE finish_task(IN wanted INT) COMMENT '{LOOKALIKE}'
        BEGIN
        /* a comment
        inside, with ;; and
-- Dump completed on 2020-01-01
--
-- Table structure for table `users`
--

UNLOCK TABLES;
        */
        -- a line comment that a client without --comments would drop
        UPDATE tasks SET is_completed = TRUE, description = CONCAT(description, '😀') WHERE id = wanted;
        END""",
    "CREATE PROCEDURE written_on_windows()\r\nBEGIN\r\n  SELECT 'a\r\nb';\r\nEND",
    """CREATE FUNCTION shout(words VARCHAR(100) CHARACTER SET utf8mb4) RETURNS VARCHAR(110) CHARACTER SET utf8mb4
        DETERMINISTIC
        RETURN CONCAT(UPPER(words), '!')""",
    """CREATE TRIGGER subtasks_before_insert BEFORE INSERT ON subtasks FOR EACH ROW
        BEGIN
        -- keeps `order` set
        IF NEW.`order` IS NULL THEN SET NEW.`order` = 0; END IF;
        END""",
    """CREATE TRIGGER tasks_after_update AFTER UPDATE ON tasks FOR EACH ROW
        INSERT INTO task_activity (task_id, user_id, action, field) VALUES (NEW.id, NEW.user_id, 'updated', 'x;;y')""",
    "CREATE TRIGGER `имя ☃ 表 after` AFTER DELETE ON `имя ☃ 表` FOR EACH ROW SET @deleted = OLD.`ключ`",
    f"""CREATE EVENT forget_old_messages ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 03:00:00'
        COMMENT '{LOOKALIKE}'
        DO DELETE FROM messages WHERE created_at < NOW() - INTERVAL 10 YEAR""",
    """CREATE EVENT `событие ☃` ON SCHEDULE EVERY 1 HOUR STARTS '2037-01-01 00:00:00' DISABLE
        DO BEGIN DELETE FROM tags WHERE name = 'ENABLE'; END""",
)

_MARIADB_OBJECTS = (
    "CREATE SEQUENCE invoice_numbers START WITH 1000 INCREMENT BY 10 CACHE 50",
    "SELECT NEXTVAL(invoice_numbers)",
    """CREATE PACKAGE tools AS PROCEDURE nothing(); END""",
    """CREATE PACKAGE BODY tools AS PROCEDURE nothing() AS BEGIN NULL; END; END""",
)

# What `extras=True` adds, as a count of what the catalogue shows.
EXTRA_TABLES = len(_EXTRA_TABLES)
VIEWS, ROUTINES, TRIGGERS, EVENTS = 3, 3, 3, 2


def connect(url: str) -> MySQLdb.Connection:
    """A connection of the test's own, in autocommit, that may store zero dates."""
    address = parse_url(url)
    connection = MySQLdb.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.database or "",
        charset="utf8mb4",
        autocommit=True,
    )
    execute(connection, "SET sql_mode='NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', time_zone='+00:00'")
    return connection


def execute(connection: MySQLdb.Connection, statement: str, values: Sequence[object] | None = None) -> list[tuple]:
    """Run one statement; its rows."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def build(url: str, *, seed: int = 1, size: float = 1.0, extras: bool = True) -> None:
    """Make and fill the tables in the URL's database, which is empty. A size of 1 is about 0.5 MB of dump."""
    with closing(connect(url)) as connection:
        for statement in _TODO_SCHEMA:
            execute(connection, statement)
        for table, rows in _todo_rows(random.Random(seed), size):
            _insert(connection, table, rows)
        if extras:
            _build_extras(connection, random.Random(seed))


def is_mariadb(connection: MySQLdb.Connection) -> bool:
    """Whether this server is MariaDB, else MySQL."""
    return "MariaDB" in str(execute(connection, "SELECT VERSION()")[0][0])


def _build_extras(connection: MySQLdb.Connection, chance: random.Random) -> None:
    for statement in _EXTRA_TABLES:
        execute(connection, statement)
    for table, rows in _extra_rows(chance):
        _insert(connection, table, rows)
    execute(connection, "INSERT INTO `generated` (id, first_name, last_name, `after`) VALUES (1,'Ada','Lovelace',3)")
    execute(
        connection,
        """INSERT INTO many_types VALUES
        (1, b'1010101010', b'1', '{"a": [1, "😀", null]}', ST_GeomFromText('POINT(1.5 -2.25)'),
         -12345678901234567890.0123456789, 'b''c', 'x,z', 2024, '-12:34:56.789012', '2024-02-29 23:59:59.999999',
         '1000-01-01', -1.7976931348623157e308, 255, 18446744073709551615, 'é', ''),
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)""",
    )
    for statement in _EXTRA_OBJECTS:
        execute(connection, statement)
    if is_mariadb(connection):
        execute(connection, "SET sql_mode='ORACLE'")
        for statement in _MARIADB_OBJECTS:
            execute(connection, statement)


def _insert(connection: MySQLdb.Connection, table: str, rows: Iterable[Sequence[object]]) -> None:
    batch: list[Sequence[object]] = []
    with closing(connection.cursor()) as cursor:
        quoted = "`" + table.replace("`", "``") + "`"

        def send() -> None:
            if batch:
                values = ",".join(["%s"] * len(batch[0]))
                cursor.executemany(f"INSERT INTO {quoted} VALUES ({values})", batch)
                batch.clear()

        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                send()
        send()


def _words(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))


def _todo_rows(chance: random.Random, size: float) -> Iterator[tuple[str, Iterator[tuple[object, ...]]]]:
    users, tasks = max(2, int(20 * size)), max(2, int(400 * size))
    categories, conversations, tags = users * 3, users * 2, users * 4

    def user() -> str:
        return f"usr_{chance.randrange(users):012d}"

    def moment() -> datetime:
        return EPOCH + timedelta(seconds=chance.randrange(300 * 86_400))

    def one(most: int) -> int:
        return chance.randrange(most) + 1

    yield "users", ((f"usr_{i:012d}", f"user{i}@example.com", _words(chance, 3), moment()) for i in range(users))
    yield (
        "categories",
        ((i + 1, f"usr_{i // 3:012d}", f"category {i} 😀", "#a1b2c3", "star", moment()) for i in range(categories)),
    )
    yield (
        "tasks",
        (
            (
                *(i + 1, user(), _words(chance, 8)[:255], _words(chance, 60), chance.random() < 0.5),
                *(chance.choice(("low", "high", None)), moment(), chance.choice((None, one(categories)))),
                *(chance.choice((None, "weekly")), None, moment(), moment()),
            )
            for i in range(tasks)
        ),
    )
    yield "conversations", ((i + 1, user(), moment(), moment()) for i in range(conversations))
    yield (
        "messages",
        (
            (i + 1, user(), one(conversations), ("user", "assistant")[i % 2], _words(chance, 150), moment())
            for i in range(tasks)
        ),
    )
    yield "tags", ((i + 1, f"usr_{i // 4:012d}", f"tag {i}", moment()) for i in range(tags))
    yield "task_tags", ((i + 1, tag) for i in range(tasks) for tag in sorted({one(tags), one(tags)}))
    yield (
        "subtasks",
        ((i + 1, one(tasks), _words(chance, 5)[:255], i % 3 == 0, i % 7, moment(), moment()) for i in range(tasks)),
    )
    yield (
        "attachments",
        (
            (
                i + 1,
                one(tasks),
                f"file {i}.pdf",
                f"/srv/files/{i}",
                chance.randrange(1 << 30),
                "application/pdf",
                moment(),
            )
            for i in range(tasks // 2)
        ),
    )
    yield (
        "task_activity",
        (
            (i + 1, one(tasks), user(), "updated", "title", _words(chance, 10), _words(chance, 10), moment())
            for i in range(tasks * 2)
        ),
    )


def _extra_rows(chance: random.Random) -> Iterator[tuple[str, Sequence[Sequence[object]]]]:
    every_byte = bytes(range(256))
    yield "no primary key", [(2, "two"), (1, "one"), (1, "one"), (None, None)]
    yield "имя ☃ 表", [(1, "😀 😀", 2, 3), (2, LOOKALIKE, None, None)]
    yield "tick`ed -- /* name", [(1, b"\n--\n-- \nUNLOCK TABLES;\n")]
    yield (
        "binary_values",
        [
            (1, every_byte[:255], every_byte * 40, every_byte[:16], every_byte),
            (2, b"", b"", b"", b""),
            (3, None, chance.randbytes(100_000), None, None),
        ],
    )
    yield "zero_dates", [(1, "0000-00-00", "0000-00-00 00:00:00"), (2, "2024-00-00", "2024-05-00 10:00:00")]
    yield "partitioned", [(i, f"{2022 + i}-06-01", "x" * i) for i in range(6)]
    yield "lookalikes", [(1, LOOKALIKE), (2, LOOKALIKE.replace("\n", "\r\n")), (3, "\0\x1a\\" + LOOKALIKE), (4, "'")]
