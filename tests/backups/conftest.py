"""What several tests of backups share."""

import pytest

from apps.console.roles import ensure_groups
from tests.factories import UserFactory

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def sign_in(client):
    """Signs a member of a group in and gives the browser."""
    ensure_groups()

    def as_member(group: str):
        client.force_login(UserFactory(username=group, group=group), backend=BACKEND)
        return client

    return as_member
