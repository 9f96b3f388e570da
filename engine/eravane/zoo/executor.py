"""Runs independent tasks on the cores of this machine, or on the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from eravane.backend.choice import reclaim
from eravane.core.memory import cores
from eravane.core.telemetry import UsageReporter
from eravane.zoo.fleet import MemoryBudget, News, TaskControl, run_in_threads, within

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task, TaskControl], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 0,
    scheduler: str = "",
    on_news: News | None = None,
    size_of: Callable[[Task], int] | None = None,
    capacity: int = 0,
    reporter: UsageReporter | None = None,
    cost_of: Callable[[Task], float] | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Run `function(task, control)` for every task; results are yielded as they finish.

    Threads share the store's memory maps; XGBoost releases the interpreter lock, and one thread per model beats
    several threads on one model. A result never depends on how many tasks run at once.

    Args:
        function: the work; it ends soon after `control.is_set()`.
        tasks: in the order to start them; put the longest first.
        workers: threads on this machine (0: one per core), or workers of the scheduler.
        scheduler: address of a running Dask scheduler; then tasks and results travel, and workers need the store's
            path.
        on_news: called in this thread with the news that tasks report.
        size_of: bytes that a task holds while it runs; threads wait until they are free (a Dask worker runs one task).
        capacity: bytes that tasks on this machine may hold together (0: no limit).
        reporter: receives the resources that every task used on a Dask worker.
        cost_of: work of a task in cells x trees: small ones are sent to Dask several at a time (None: each alone).

    Raises:
        RunError: the scheduler does not answer, vanishes, or gives up on a task.
    """
    if scheduler:
        from eravane.zoo.cluster import run_on_dask, sent_together

        together = sent_together([cost_of(task) for task in tasks], workers) if cost_of and workers else ()
        yield from run_on_dask(function, tasks, scheduler, on_news, reporter, together)
    else:
        run = within(function, size_of, MemoryBudget(capacity), _reclaim) if size_of and capacity else function
        yield from run_in_threads(run, tasks, workers or cores(), on_news)


def _reclaim(task: object) -> None:
    """Release cached memory of the device that a task grows its trees on."""
    reclaim(task.learner.device if hasattr(task, "learner") else "cpu")
