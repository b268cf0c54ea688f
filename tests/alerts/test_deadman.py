"""An outside watcher is called while Pulsewatch works, and only then."""

import logging
from datetime import timedelta

import pytest

from apps.alerts import runner
from apps.core import heartbeats
from tests.alerts.conftest import NOW
from tests.receiver import Reply

LATER = NOW + timedelta(minutes=5)
pytestmark = pytest.mark.django_db


def test_it_is_called_while_all_is_well_and_not_when_the_sampler_is_silent(hook, settings):
    heartbeats.expect(NOW)
    assert not runner.ping_deadman(NOW)  # nobody is set
    settings.DEADMAN_URL = f"{hook.url}/ping/t0psecret"
    assert runner.ping_deadman(NOW)
    assert [(request.method, request.path) for request in hook.requests] == [("GET", "/ping/t0psecret")]
    assert not runner.ping_deadman(LATER)
    for source in ("fast", "sampler", "prober"):  # only the worker of queue long is silent: alerts still work
        heartbeats.beat(source, LATER)
    assert runner.ping_deadman(LATER)
    assert len(hook.requests) == 2


def test_that_it_was_not_reached_is_logged_without_the_address(hook, settings, caplog):
    settings.DEADMAN_URL = f"{hook.url}/ping/t0psecret"
    hook.starts_over(Reply(503))
    with caplog.at_level(logging.WARNING):
        assert not runner.ping_deadman(NOW)
    assert "It answered 503." in caplog.text
    assert "t0psecret" not in caplog.text
