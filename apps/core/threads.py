"""Threads for what may hang: the system's name look-up, a driver, a file on a network that is gone."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


class LeftBehind(ThreadPoolExecutor):
    """At most so many threads, for which nobody waits: not `shutdown`, not asyncio.run, not the end of the process.

    A call that hangs keeps its thread and nothing else. asyncio takes only a ThreadPoolExecutor for its default
    executor; of that nothing is used but the name.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most)
        self._most, self._name = most, name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._waiting = 0  # threads; calls that no thread has taken, less the threads that are idle
        self._closed = False

    def submit(self, fn: Callable[Given, Found], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Found]:
        """Have a thread call it. Raises RuntimeError after `shutdown`."""
        future: Future[Found] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("this executor takes no more calls")
            self._waiting += 1
            self._calls.put((future, partial(fn, *args, **kwargs)))
            if self._waiting > 0 and self._started < self._most:
                self._started += 1
                self._waiting -= 1  # of the new thread, which begins idle
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; idle threads end, and the others after the calls that wait. Returns at once always."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in range(self._started):
                self._calls.put(None)

    def _cancel(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call[0].cancel()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, ask = call
            if future.set_running_or_notify_cancel():
                try:
                    found = ask()
                except BaseException as error:  # whoever waits for the future gets it
                    future.set_exception(error)
                else:
                    future.set_result(found)
                    del found
            del call, future, ask
            with self._lock:
                self._waiting -= 1


def run(work: Coroutine[Any, Any, Found], *, resolvers: int) -> Found:
    """As asyncio.run, but look-ups of names that still hang at the end are left behind.

    `resolvers` are the threads that may look names up; asyncio's own are a handful on a small machine, which a few
    names without an answering server hold for half a minute.
    """

    async def all_of_it() -> Found:
        asyncio.get_running_loop().set_default_executor(LeftBehind(resolvers, "resolve"))
        return await work

    return asyncio.run(all_of_it())
