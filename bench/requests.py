"""What the middleware around a request and its log line cost."""

import logging.config
import os
import time

from bench.measure import Report, interleaved

CALLS = 500  # requests of one timed loop


def run(report: Report) -> None:
    """Time one request through the whole stack, without its log line, and without our two middlewares."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import RequestFactory, override_settings

    ours = ("apps.health.middleware.ProbeMiddleware", "apps.core.middleware.RequestMiddleware")
    environ = RequestFactory(SERVER_NAME="localhost").get("/").environ
    whole = WSGIHandler()
    with override_settings(MIDDLEWARE=[name for name in settings.MIDDLEWARE if name not in ours]):
        without = WSGIHandler()

    def requests(handler: WSGIHandler, *, logged: bool) -> float:
        logging.getLogger("apps.core.middleware").setLevel(logging.INFO if logged else logging.ERROR)
        started = time.perf_counter()
        for _ in range(CALLS):
            handler(dict(environ), lambda *_: None).close()
        return (time.perf_counter() - started) / CALLS * 1e6

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  (a device, not a path)
        configuration = {**settings.LOGGING}
        configuration["handlers"] = {
            name: {**handler, "stream": nowhere} for name, handler in settings.LOGGING["handlers"].items()
        }
        logging.config.dictConfig(configuration)
        try:
            cost = interleaved(
                {
                    "whole stack": lambda: requests(whole, logged=True),
                    "without the log line": lambda: requests(whole, logged=False),
                    "without our middleware": lambda: requests(without, logged=False),
                }
            )
        finally:
            logging.config.dictConfig(settings.LOGGING)
    for name, value in cost.items():
        report.figure(f"one request, {name}", value, "µs")
    report.figure("our middleware", cost["without the log line"] - cost["without our middleware"], "µs a request")
    report.figure("log line", cost["whole stack"] - cost["without the log line"], "µs a request")
