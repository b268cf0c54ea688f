"""A shop's database of any size: text, numbers, dates, JSON and files, in the shares an ordinary application has."""

import random
from collections.abc import Callable, Iterator
from itertools import accumulate

BATCH_BYTES = 1_000_000  # of one INSERT, as mysqldump writes them
ROWS = 500  # made at once, so that the random generator is asked for many values in one call

SCHEMA = """
CREATE TABLE customer (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, token CHAR(36) NOT NULL, name VARCHAR(120) NOT NULL,
  email VARCHAR(190) NOT NULL, phone VARCHAR(30) NULL, country CHAR(2) NOT NULL, credit DECIMAL(10,2) NOT NULL,
  settings JSON NOT NULL, created_at DATETIME(6) NOT NULL, UNIQUE KEY (token), KEY (email)
) ENGINE=InnoDB;
CREATE TABLE purchase (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, customer_id BIGINT UNSIGNED NOT NULL,
  status ENUM('open','paid','shipped','returned') NOT NULL, total DECIMAL(10,2) NOT NULL, note VARCHAR(500) NULL,
  placed_at DATETIME NOT NULL, shipped_at DATETIME NULL, KEY (customer_id), KEY (placed_at)
) ENGINE=InnoDB;
CREATE TABLE purchase_line (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, purchase_id BIGINT UNSIGNED NOT NULL,
  product_id INT NOT NULL, quantity SMALLINT NOT NULL, price DECIMAL(10,2) NOT NULL, KEY (purchase_id)
) ENGINE=InnoDB;
CREATE TABLE event (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, at DATETIME(6) NOT NULL, kind VARCHAR(40) NOT NULL,
  actor CHAR(36) NOT NULL, payload JSON NOT NULL, KEY (at)
) ENGINE=InnoDB;
CREATE TABLE article (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, slug VARCHAR(120) NOT NULL, body MEDIUMTEXT NOT NULL,
  score DOUBLE NOT NULL, edited_at DATETIME NOT NULL, KEY (slug)
) ENGINE=InnoDB;
CREATE TABLE attachment (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(120) NOT NULL, kind VARCHAR(60) NOT NULL,
  checksum BINARY(32) NOT NULL, content MEDIUMBLOB NOT NULL
) ENGINE=InnoDB;
"""
_SETTINGS = "SET unique_checks=0, foreign_key_checks=0;\n"


def script(size: int, seed: int = 1) -> Iterator[bytes]:
    """Statements that make and fill the tables of an empty schema: about `size` bytes, as a dump of it will have."""
    source = random.Random(seed)
    yield (SCHEMA + _SETTINGS).encode()
    makers: dict[str, tuple[float, Callable[[_Source, int], Iterator[str]]]] = {
        "customer": (0.12, _customers),
        "purchase": (0.20, _purchases),
        "purchase_line": (0.15, _purchase_lines),
        "event": (0.25, _events),
        "article": (0.18, _articles),
        "attachment": (0.10, _attachments),
    }
    made = _Source(source)
    for table, (share, maker) in makers.items():
        yield from _inserts(table, int(size * share), lambda first, maker=maker: maker(made, first))


def _inserts(table: str, size: int, rows_from: Callable[[int], Iterator[str]]) -> Iterator[bytes]:
    """INSERT statements of BATCH_BYTES with `size` bytes of rows in all."""
    number, written, batch, length = 1, 0, [], 0
    while written < size:
        for row in rows_from(number):
            batch.append(row)
            length += len(row) + 1
        number += ROWS
        if length >= BATCH_BYTES or written + length >= size:
            yield f"INSERT INTO {table} VALUES {','.join(batch)};\n".encode()
            written, batch, length = written + length, [], 0


class _Source:
    """Random values by the thousand."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        letters, weights = "etaoinshrdlucmfwypvbgkqjxz", range(26, 0, -1)
        # As in a language: few words are used often, most are rare.
        words = {"".join(source.choices(letters, weights, k=source.randint(2, 10))) for _ in range(8_000)}
        self._words = sorted(words)
        source.shuffle(self._words)
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))

    def words(self, count: int) -> list[str]:
        return self.random.choices(self._words, cum_weights=self._weights, k=count)

    def text(self, count: int) -> str:
        return " ".join(self.words(count))

    def token(self) -> str:
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def moment(self, number: int) -> str:
        """Later for a later row, as in a table that grows."""
        second = number * 7 + self.random.randrange(600)
        day, second = divmod(second, 86_400)
        month, day = divmod(day, 28)
        year, month = divmod(month, 12)
        minute, second = divmod(second, 60)
        return f"{2019 + year % 7}-{month + 1:02}-{day + 1:02} {minute // 60:02}:{minute % 60:02}:{second:02}"


def _customers(source: _Source, first: int) -> Iterator[str]:
    countries = ("DE", "FR", "PL", "IT", "ES", "NL", "US", "JP", "BR")
    words = source.words(3 * ROWS)
    for at in range(ROWS):
        given, family, company = words[3 * at : 3 * at + 3]
        number = source.random.getrandbits(40)
        phone = "NULL" if number % 3 == 0 else f"'+{number % 90 + 10} {number}'"
        yield (
            f"({first + at},'{source.token()}','{given.title()} {family.title()}','{given}.{family}@{company}.example',"
            f"{phone},'{countries[number % 9]}',{number % 10**7 / 100},"
            f'\'{{"theme": "{("dark", "light")[number % 2]}", "newsletter": {("true", "false")[number % 5 == 0]}, '
            f'"limit": {number % 1000}, "tags": ["{company}", "{family}"]}}\','
            f"'{source.moment(first + at)}.{number % 10**6:06}')"
        )


def _purchases(source: _Source, first: int) -> Iterator[str]:
    statuses = ("paid", "shipped", "shipped", "shipped", "returned", "open")
    for at in range(ROWS):
        number = source.random.getrandbits(40)
        note = f"'{source.text(number % 23 + 2)}'" if number % 4 == 0 else "NULL"
        shipped = f"'{source.moment(first + at + 9000)}'" if number % 5 else "NULL"
        yield (
            f"({first + at},{number % (first + 1000) + 1},'{statuses[number % 6]}',{number % 10**6 / 100},{note},"
            f"'{source.moment(first + at)}',{shipped})"
        )


def _purchase_lines(source: _Source, first: int) -> Iterator[str]:
    for at in range(ROWS):
        number = source.random.getrandbits(40)
        yield f"({first + at},{(first + at) // 3 + 1},{number % 20_000},{number % 7 + 1},{number % 99_999 / 100})"


def _events(source: _Source, first: int) -> Iterator[str]:
    kinds = ("page.viewed", "page.viewed", "cart.changed", "payment.accepted", "mail.sent", "session.opened")
    systems = ("X11; Linux x86_64", "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "Android 14")
    actors = [source.token() for _ in range(ROWS // 10)]  # who is about at this time
    words = source.words(3 * ROWS)
    for at in range(ROWS):
        number = source.random.getrandbits(60)
        some = words[3 * at : 3 * at + 3]
        yield (
            f"({first + at},'{source.moment(first + at)}.{number % 10**6:06}','{kinds[number % 6]}',"
            f"'{actors[number % len(actors)]}',"
            f'\'{{"ip": "10.{number % 6}.{(number >> 8) % 256}.{(number >> 16) % 256}", "ms": {number % 4000}, '
            f'"path": "/{some[0]}/{some[1]}?{some[2]}={number % 9999}", '
            f'"agent": "Mozilla/5.0 ({systems[number % 4]}; rv:{number % 9 + 120}.0) Gecko/20100101", '
            f'"items": [{number % 89}, {number % 997}, {number % 9973}]}}\')'
        )


def _articles(source: _Source, first: int) -> Iterator[str]:
    for at in range(ROWS):
        number = source.random.getrandbits(40)
        body = "\\n\\n".join(source.text(60 + number % 90).capitalize() + "." for _ in range(1 + number % 8))
        yield (
            f"({first + at},'{'-'.join(source.words(4))}','{body}',{source.random.gauss(50, 12)},"
            f"'{source.moment(first + at)}')"
        )


def _attachments(source: _Source, first: int) -> Iterator[str]:
    """Photographs and the like: their bytes are as good as random. Of a kilobyte to 40."""
    for at in range(ROWS // 20):
        number = source.random.getrandbits(40)
        content = source.random.randbytes(1000 + number % 40_000).hex()
        yield (
            f"({first + at},'{source.words(1)[0]}-{number}.jpg','image/jpeg',0x{source.random.randbytes(32).hex()},"
            f"0x{content})"
        )
