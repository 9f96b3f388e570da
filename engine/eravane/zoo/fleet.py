"""Runs independent tasks on the cores of this machine, or on the workers of a Dask scheduler."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from eravane.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_tasks(
    function: Callable[[Task, threading.Event | None], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 0,
    scheduler: str = "",
) -> Iterator[tuple[Task, Result]]:
    """Run `function(task, stop)` for every task; results come as they are done.

    Threads share the store's memory maps; XGBoost releases the interpreter lock, and one thread per model beats
    several threads on one model. A result never depends on how many run at once.

    Args:
        function: what to do; it ends soon after `stop` is set (on a Dask worker there is none).
        tasks: in the order to start them; put the longest first.
        workers: threads on this machine (0: one per core).
        scheduler: address of a running Dask scheduler; then tasks and results travel, and workers need the store's
            path.

    Raises:
        RunError: the scheduler does not answer.
    """
    if scheduler:
        yield from _run_on_dask(function, tasks, scheduler)
    else:
        yield from _run_in_threads(function, tasks, workers or cores())


def _run_in_threads(
    function: Callable[[Task, threading.Event | None], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="zoo") as pool:
        waiting: dict[Future[Result], Task] = {pool.submit(function, task, stop): task for task in tasks}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run_on_dask(
    function: Callable[[Task, threading.Event | None], Result], tasks: Sequence[Task], scheduler: str
) -> Iterator[tuple[Task, Result]]:
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        waiting = {client.submit(function, task, None, pure=False): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
