"""Independent tasks in threads of this machine, and the memory that they share."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from eravane.learners.protocol import OutOfDeviceMemoryError

Task = TypeVar("Task")
Result = TypeVar("Result")
News = Callable[[Any], None]


class TaskControl:
    """A task's connection to its caller: whether to stop, and a channel for news of its progress.

    Args:
        stop: set when the caller cancels; None where it cannot (on a Dask worker).
        report: receives news, which reach the caller's `on_news`.
    """

    def __init__(self, stop: threading.Event | None = None, report: News | None = None) -> None:
        self._stop, self._report = stop, report

    def is_set(self) -> bool:
        """Whether the task should stop soon."""
        return self._stop is not None and self._stop.is_set()

    def report(self, news: object) -> None:
        """Send news; they must be picklable."""
        if self._report is not None:
            self._report(news)


class MemoryBudget:
    """Bytes shared by tasks that run at the same time; a task larger than all of it runs alone.

    Args:
        capacity: bytes in all; 0 sets no limit.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._change = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them."""
        size = min(size, self._capacity)
        with self._change:
            self._change.wait_for(lambda: self._used + size <= self._capacity)
            self._used += size
        try:
            yield
        finally:
            with self._change:
                self._used -= size
                self._change.notify_all()

    @contextmanager
    def take_all(self) -> Iterator[None]:
        """Wait until all bytes are free, and hold them."""
        with self.take(self._capacity):
            yield


def within(
    function: Callable[[Task, TaskControl], Result],
    size_of: Callable[[Task], int],
    budget: MemoryBudget,
    free: Callable[[Task], None] = lambda _: None,
) -> Callable[[Task, TaskControl], Result]:
    """The function, started when its memory is free; repeated with all memory if that was not enough.

    Args:
        function: performs a task.
        size_of: bytes that a task needs.
        budget: memory that tasks share.
        free: releases cached memory of libraries before the second attempt.
    """

    def run(task: Task, control: TaskControl) -> Result:
        try:
            with budget.take(size_of(task)):
                return function(task, control)
        except OutOfDeviceMemoryError:
            pass  # while an error is handled, it keeps the function's objects alive
        with budget.take_all():
            free(task)
            return function(task, control)

    return run


def run_in_threads(
    function: Callable[[Task, TaskControl], Result], tasks: Sequence[Task], workers: int, on_news: News | None
) -> Iterator[tuple[Task, Result]]:
    """Run tasks in threads of this process; results are yielded as they finish."""
    stop = threading.Event()
    inbox: queue.SimpleQueue[tuple[Future[Result] | None, Any]] = queue.SimpleQueue()
    control = TaskControl(stop, lambda news: inbox.put((None, news)))
    with ThreadPoolExecutor(workers, thread_name_prefix="zoo") as pool:
        waiting: dict[Future[Result], Task] = {}
        for task in tasks:
            future = pool.submit(function, task, control)
            waiting[future] = task
            future.add_done_callback(lambda done: inbox.put((done, None)))
        try:
            while waiting:
                done, news = inbox.get()
                if done is not None:
                    yield waiting.pop(done), done.result()
                elif on_news is not None:
                    on_news(news)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
