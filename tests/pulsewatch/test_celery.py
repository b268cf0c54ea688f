"""Messages that are sent by name reach the right workers, from every thread of the web process."""

import threading

import celery

from pulsewatch.wsgi import celery_app


def test_work_that_may_take_hours_goes_to_its_own_workers_also_when_it_is_sent_by_name(settings):
    celery_app.loader.import_default_modules()
    own = {name: task for name, task in celery_app.tasks.items() if not name.startswith("celery.")}
    assert {"backups.run", "backups.restore", "backups.tick"} <= own.keys()

    for name, task in own.items():
        # A slice of checks takes minutes by design, and `fast` has a process for each of them beside those for ticks.
        slow = (task.time_limit or 0) > settings.CELERY_TASK_TIME_LIMIT and name != "health.probe_slice"
        assert celery_app.amqp.router.route({}, name)["queue"].name == ("long" if slow else "fast"), name


def test_the_threads_that_serve_requests_speak_through_our_app():
    found = []
    thread = threading.Thread(target=lambda: found.append(celery.current_app.main))
    thread.start()
    thread.join()

    assert found == ["pulsewatch"]
