"""The command line, from registering a database to a proven restore."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from apps.backups.engines import engine_for, parse_url
from apps.backups.models import BackupJob, Restore
from apps.core.keys import new_keyset
from apps.inventory.models import Database
from tests.backups.mysql_schemas import url_of, user_with
from tests.fleet import connect

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kept_here(settings, tmp_path):
    """Backups in a folder of the test's own, under a keyset of its own."""
    settings.BACKUP_STORAGE = str(tmp_path / "backups")
    settings.BACKUP_KEYSET = new_keyset()
    return tmp_path / "backups"


def run(*words: str) -> str:
    output = io.StringIO()
    call_command(*words, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def add(url_file, name: str = "shop") -> str:
    return run("database", "add", name, "--url-file", str(url_file), "--environment", "production")


@pytest.fixture
def shop(mariadb, tmp_path):
    """A MariaDB with two tables, and the file that holds its URL."""
    connection = connect(mariadb)
    try:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB")
        cursor.execute("CREATE TABLE orders (id INT PRIMARY KEY, `order` INT) ENGINE=InnoDB")
        cursor.executemany("INSERT INTO customers VALUES (%s, %s)", [(n, f"customer {n} 🙂") for n in range(500)])
        cursor.executemany("INSERT INTO orders VALUES (%s, %s)", [(n, n * n) for n in range(500)])
        connection.commit()
    finally:
        connection.close()
    file = tmp_path / "url"
    file.write_text(mariadb.url)
    return file


def test_a_database_is_registered_backed_up_drilled_and_restored(shop, mariadb):
    said = add(shop)
    assert "MariaDB" in said
    assert "2 tables" in said

    backup = run("backup", "run", "shop").splitlines()[-1]
    job = BackupJob.objects.get(pk=backup)
    assert (job.status, job.integrity_check_passed) == ("completed", True)
    assert set(job.tables) == {"customers", "orders"}
    assert backup in run("backup", "list")
    assert json.loads(run("backup", "list", "--json"))[0]["verified"] is True
    assert "verified" in run("backup", "verify", backup)

    assert "restored: digests equal, 2 tables" in run("backup", "drill", "shop")
    job.refresh_from_db()
    assert job.restore_tested

    assert "restored: mysql://" in run("backup", "restore", backup, "--to", "shop_copy")
    connection = connect(mariadb, schema="shop_copy")
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM customers")
    assert cursor.fetchone() == (500,)
    cursor.execute("SHOW DATABASES LIKE 'pulsewatch_drill%'")
    assert cursor.fetchall() == ()
    connection.close()


def test_a_flipped_byte_is_found_and_nothing_is_restored(shop, kept_here, mariadb):
    add(shop)
    backup = run("backup", "run", "shop").splitlines()[-1]
    path = kept_here / BackupJob.objects.get(pk=backup).object_path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(CommandError, match=r"Segment 0 of the object .* was altered.* Nothing was changed"):
        run("backup", "restore", backup, "--to", "shop_copy")
    with pytest.raises(CommandError, match=r"Segment 0 of the object \(bytes 0 to \d+\) was altered"):
        run("backup", "verify", backup)
    assert [row.status for row in Restore.objects.all()] == ["failed", "failed"]
    # From now on it is nothing to rely on.
    with pytest.raises(CommandError, match="was found damaged"):
        run("backup", "restore", backup, "--to", "shop_copy")
    assert "DAMAGED" in run("backup", "list")
    assert not BackupJob.objects.verified().exists()
    connection = connect(mariadb)
    cursor = connection.cursor()
    cursor.execute("SHOW DATABASES LIKE 'shop_copy'")
    assert cursor.fetchall() == ()
    connection.close()


def test_a_schema_that_is_not_empty_is_not_overwritten(shop):
    add(shop)
    backup = run("backup", "run", "shop").splitlines()[-1]

    with pytest.raises(CommandError, match="not empty"):
        run("backup", "restore", backup, "--to", "pulsewatch")


def test_a_url_with_a_wrong_password_registers_nothing(shop, mariadb, tmp_path):
    file = tmp_path / "wrong"
    file.write_text(mariadb.url.replace("pulsewatch:", "pulsewatch:open-sesame-", 1))

    with pytest.raises(CommandError) as caught:
        add(file)

    assert "sesame" not in str(caught.value)
    assert not Database.objects.exists()


def test_the_url_is_kept_sealed(shop, mariadb):
    add(shop)

    password = mariadb.url.split(":")[2].split("@")[0].encode()
    row = Database.objects.get()
    assert password not in bytes(row.url_sealed)
    assert (row.host, row.database_name) == ("127.0.0.1", "pulsewatch")


def test_incremental_is_refused_with_a_sentence(shop):
    add(shop)

    with pytest.raises(CommandError, match="Incremental backups are not available yet"):
        run("backup", "run", "shop", "--type", "incremental")
    assert not BackupJob.objects.exists()


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        ("mysql://shop:open-sesame@127.0.0.1:1/shop", "production", "Cannot sign in .* Check that the server runs"),
        (
            "mysql://shop:open-sesame@no-such-host.invalid/shop",
            "production",
            "cannot be resolved: correct it",
        ),
        ("oracle://shop:open-sesame@127.0.0.1/shop", "production", "begins with none of mysql://, .*; an example is"),
        ("sqlite:////nowhere/shop.sqlite3", "production", "/nowhere/shop.sqlite3"),
        ("mysql://shop:open-sesame@127.0.0.1:1/shop", "development", "backed up in staging and production only"),
        ("mysql://shop:open-sesame@127.0.0.1:1/shop", "prod", "backed up in staging and production only"),
    ],
)
def test_a_database_that_cannot_be_backed_up_is_refused_with_one_sentence(tmp_path, url, environment, said):
    file = tmp_path / "url"
    file.write_text(url)

    with pytest.raises(CommandError, match=said) as caught:
        run("database", "add", "shop", "--url-file", str(file), "--environment", environment)

    assert "sesame" not in str(caught.value)
    assert not Database.objects.exists()
    assert not BackupJob.objects.exists()


@pytest.mark.parametrize("privilege", ["EVENT", "SHOW VIEW", "TRIGGER"])
def test_a_missing_privilege_is_named_with_its_grant(mariadb, tmp_path, privilege):
    held = sorted({"SELECT", "SHOW VIEW", "TRIGGER", "EVENT"} - {privilege})
    grants = (f"{', '.join(held)} ON `{{schema}}`.*", "SELECT ON mysql.proc")
    poor = user_with(engine_for(parse_url(mariadb.url)), *grants)
    file = tmp_path / "url"
    file.write_text(url_of(poor))

    with pytest.raises(CommandError, match=f"{privilege} is missing: .* GRANT {privilege} ON `pulsewatch`") as caught:
        add(file)

    assert poor.address.password not in str(caught.value)
    assert not Database.objects.exists()


def test_a_list_of_no_or_fewer_backups_is_refused():
    for wrong in ("0", "-1", "all"):
        with pytest.raises(CommandError, match="give a number of 1 or more"):
            run("backup", "list", "--limit", wrong)
