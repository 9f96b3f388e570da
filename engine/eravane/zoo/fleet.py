"""Runs independent tasks on the cores of this machine, or on the workers of a Dask scheduler."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from eravane.core.telemetry import Ledger
from eravane.learners.xgboost import OutOfDeviceMemoryError

Task = TypeVar("Task")
Result = TypeVar("Result")
News = Callable[[Any], None]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


class Watch:
    """What a running task sees of its caller: whether to stop, and where to tell how far it is.

    Args:
        stop: set when the caller gives up; None where nobody can (on a Dask worker).
        tell: takes news, which reach the caller's `on_news`.
    """

    def __init__(self, stop: threading.Event | None = None, tell: News | None = None) -> None:
        self._stop, self._tell = stop, tell

    def is_set(self) -> bool:
        """Whether the task shall end soon."""
        return self._stop is not None and self._stop.is_set()

    def tell(self, news: Any) -> None:
        """Send news; they must be picklable."""
        if self._tell is not None:
            self._tell(news)


class Room:
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
        """Wait until nobody holds anything, and hold everything."""
        with self.take(self._capacity):
            yield


def run_tasks(
    function: Callable[[Task, Watch], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 0,
    scheduler: str = "",
    on_news: News | None = None,
    size_of: Callable[[Task], int] | None = None,
    capacity: int = 0,
    ledger: Ledger | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Run `function(task, watch)` for every task; results come as they are done.

    Threads share the store's memory maps; XGBoost releases the interpreter lock, and one thread per model beats
    several threads on one model. A result never depends on how many run at once.

    Args:
        function: what to do; it ends soon after `watch.is_set()`.
        tasks: in the order to start them; put the longest first.
        workers: threads on this machine (0: one per core).
        scheduler: address of a running Dask scheduler; then tasks and results travel, and workers need the store's
            path.
        on_news: called in this thread with whatever tasks tell.
        size_of: bytes a task holds while it runs; threads wait until they are free (on Dask a worker runs one task).
        capacity: bytes that tasks on this machine may hold together (0: no limit).
        ledger: told what every task used on a Dask worker.

    Raises:
        RunError: the scheduler does not answer, vanishes, or gives up on a task.
    """
    if scheduler:
        from eravane.zoo.cluster import run_on_dask

        yield from run_on_dask(function, tasks, scheduler, on_news, ledger)
    else:
        run = _fitted(function, size_of, Room(capacity)) if size_of and capacity else function
        yield from _run_in_threads(run, tasks, workers or cores(), on_news)


def _fitted(
    function: Callable[[Task, Watch], Result], size_of: Callable[[Task], int], room: Room
) -> Callable[[Task, Watch], Result]:
    """The function, started when its memory is free, and once more with all of it when that was too little."""

    def run(task: Task, watch: Watch) -> Result:
        try:
            with room.take(size_of(task)):
                return function(task, watch)
        except OutOfDeviceMemoryError:
            with room.take_all():
                return function(task, watch)

    return run


def _run_in_threads(
    function: Callable[[Task, Watch], Result], tasks: Sequence[Task], workers: int, on_news: News | None
) -> Iterator[tuple[Task, Result]]:
    stop = threading.Event()
    inbox: queue.SimpleQueue[tuple[Future[Result] | None, Any]] = queue.SimpleQueue()
    watch = Watch(stop, lambda news: inbox.put((None, news)))
    with ThreadPoolExecutor(workers, thread_name_prefix="zoo") as pool:
        waiting: dict[Future[Result], Task] = {}
        for task in tasks:
            future = pool.submit(function, task, watch)
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
