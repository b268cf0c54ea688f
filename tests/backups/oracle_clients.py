"""MySQL's own `mysqldump` and `mysql` on PATH, as an operator would have installed them."""

from pathlib import Path

from tests.servers.mysql_root import mysql_root, mysqld

PROGRAMS = ("mysqldump", "mysql")


def oracle_clients(folder: Path) -> Path:
    """Fill the folder with a script for each program, which starts it with the loader it was built with."""
    root = mysql_root()
    *loader, _ = mysqld(root)
    for name in PROGRAMS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {" ".join(map(str, loader))} {root}/usr/bin/{name} "$@"\n')
        script.chmod(0o755)
    return folder
