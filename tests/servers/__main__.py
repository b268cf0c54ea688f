"""`python3 -m tests.servers install`: install every Debian package that the suite needs."""

import sys
from collections.abc import Sequence

from tests.servers.packages import ServerError, ensure_installed, suite_packages


def main(arguments: Sequence[str]) -> int:
    """0 when all is installed, 1 when it cannot be, 2 for wrong arguments."""
    if list(arguments) != ["install"]:
        print("usage: python3 -m tests.servers install", file=sys.stderr)
        return 2
    try:
        ensure_installed(*suite_packages())
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
