"""What every browser test does. Pictures go to build/screenshots/."""

import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.serving import Served

PASSWORD = "browser-Pa55-phrase"
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"


def sign_in(page: Page, console: Served, user: str = "ana") -> None:
    page.goto(console.base)
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Development")).to_be_visible()


def picture(page: Page, name: str, *, whole: bool = False) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


def shell(variables: dict[str, str], program: str) -> None:
    """Run a program on the console's data, as a worker would; what factories make bears the process's own numbers."""
    own = "import os, tests.factories\ntests.factories.count_from(os.getpid() * 1000)\n"
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", own + program]
    subprocess.run(command, check=True, env={**os.environ, **variables})
