#!/usr/bin/env python
"""Pulsewatch on the command line: `python manage.py --help` lists the commands."""

import sys

from pulsewatch.env import require_settings_module


def main() -> None:
    require_settings_module()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
