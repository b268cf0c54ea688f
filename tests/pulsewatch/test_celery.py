"""Messages that are sent by name reach the right workers, from every thread of the web process."""

import threading

import celery

from pulsewatch.wsgi import celery_app


def test_a_message_sent_by_name_goes_where_its_task_says():
    celery_app.loader.import_default_modules()
    own = {name: task for name, task in celery_app.tasks.items() if not name.startswith("celery.")}
    assert {"backups.run", "backups.restore", "backups.tick"} <= own.keys()

    for name, task in own.items():
        routed = celery_app.amqp.router.route({}, name)["queue"].name
        assert routed == vars(type(task)).get("queue", "fast"), name


def test_the_threads_that_serve_requests_speak_through_our_app():
    found = []
    thread = threading.Thread(target=lambda: found.append(celery.current_app.main))
    thread.start()
    thread.join()

    assert found == ["pulsewatch"]
