"""The zoo on Dask: a cluster of this machine or an existing scheduler, one task per matrix, one model at a time."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
import pickle
import queue
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from eravane.core.config import ComputeConfig
from eravane.core.errors import RunError
from eravane.core.memory import cores
from eravane.core.telemetry import UsageReporter, WorkerUsage, on_worker
from eravane.core.units import format_size
from eravane.data.store.store import EraStore
from eravane.zoo.clustercheck import Heartbeats, bounded, check_store, check_versions, known_workers
from eravane.zoo.fleet import News, TaskControl

if TYPE_CHECKING:
    from distributed import Client, Future

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL = "local"  # compute.scheduler for a cluster of this machine
CONNECT_SECONDS = 20
# Seconds without a worker, or without the scheduler, after which the run ends with an error.
PATIENCE_SECONDS = 60.0
# Messages in which each worker's tasks are sent, if that is not too much at once: a message costs 10 ms of processors,
# as a small task, which is nothing beside the most cells x trees of one (6 s of a core, a tenth of a second of a GPU).
MESSAGES, MOST_SENT = 8, 1e11
POLL_SECONDS = 1.0
# Seconds for which a worker's reports are held to be sent together.
REPORT_SECONDS = 0.25
# What a cluster of this machine measures of itself, less often than by Dask's defaults (10 ms, 20 ms, half a second),
# with which two idle workers and their scheduler take a tenth of a core.
SELDOM = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
}


@contextmanager
def local_cluster(compute: ComputeConfig, device: str, note: Callable[[str], None]) -> Iterator[ComputeConfig]:
    """Start a cluster of this machine where `compute.scheduler` is "local"; it is closed when the block ends.

    Args:
        compute: the run's settings.
        device: "cpu" gives one worker process per core (or `compute.workers`), "cuda" one per GPU.
        note: called with a line that names the scheduler.

    Yields:
        The settings with the scheduler's address; unchanged where no cluster is configured.

    Raises:
        RunError: the cluster does not start.
    """
    if compute.scheduler != LOCAL:
        yield compute
        return
    with _start(compute, device) as cluster:
        address = cluster.scheduler_address
        note(f"Dask cluster of this machine at {address}, {len(cluster.workers)} workers on {device}")
        yield dataclasses.replace(compute, scheduler=address)


def _start(compute: ComputeConfig, device: str) -> Any:
    if device != "cpu":
        return importlib.import_module("eravane.backend.cuda_cluster").start(compute.workers)
    import dask
    from distributed import LocalCluster

    _quieten()
    try:
        with dask.config.set(SELDOM):  # workers are handed a copy
            return LocalCluster(
                n_workers=compute.workers or cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                preload=["eravane.zoo.training"],  # imported while workers start, which they do side by side
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise RunError(
            f"the Dask cluster of this machine did not start: {error}; its processes import the script that starts it, "
            'so in a script the call belongs below `if __name__ == "__main__":`'
        ) from error


@contextmanager
def connect(scheduler: str) -> Iterator[Client]:
    """A client of a running scheduler.

    Raises:
        RunError: no scheduler answers at the address.
    """
    from distributed import Client

    _quieten()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions, in a table; `check_versions` refuses those that matter
            client = Client(scheduler, timeout=f"{CONNECT_SECONDS}s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _quieten() -> None:
    """Keep Dask's tracebacks off the terminal; what matters of them is raised as an error with advice."""
    # Some of its loggers have levels of their own.
    for name in ["distributed", "tornado", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def workers_of(client: Client) -> dict[str, Any]:
    """The scheduler's facts of every worker, by address; waits for the first worker.

    Raises:
        RunError: no worker joins.
    """
    try:
        client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
    except TimeoutError as error:
        raise RunError(_idle(client.scheduler.address)) from error
    return known_workers(client, client.scheduler.address)


def worker_count(scheduler: str, store: EraStore) -> int:
    """Number of a scheduler's workers, each checked to run the same versions and to see the store; waits for the first.

    Raises:
        RunError: no scheduler answers at the address, no worker joins, or one cannot do the work.
    """
    with connect(scheduler) as client:
        workers = workers_of(client)
        check_versions(client, scheduler)
        check_store(client, scheduler, store)
        return len(workers)


@dataclass(frozen=True)
class _Remote(Generic[Task, Result]):
    """A function of tasks on a worker, one after the other: reports return through the scheduler's event log.

    Attributes:
        function: what to do.
        topic: of the event log.
        gpus: whether the worker's GPU is sampled.
    """

    function: Callable[[Task, TaskControl], Result]
    topic: str
    gpus: bool

    def __call__(self, tasks: Sequence[Task]) -> list[tuple[Result, WorkerUsage]]:
        from distributed import get_worker

        worker, found = get_worker(), list[tuple[Result, WorkerUsage]]()
        reports = Reports(lambda news: worker.log_event(self.topic, pickle.dumps(news)))
        control = TaskControl(report=reports.add)
        try:
            for task in tasks:
                with on_worker(str(worker.name), _label(self.function, task), gpus=self.gpus) as usage:
                    found.append((self.function(task, control), usage()))
                reports.ended(found[-1][1].seconds)
        finally:
            reports.send()
        return found


class Reports:
    """Reports of a worker, sent together where they follow each other quickly: a message costs a millisecond."""

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self._send, self._held, self._sent = send, list[Any](), 0.0

    def add(self, news: object) -> None:
        """Send it with those before it, unless others were sent less than `REPORT_SECONDS` ago."""
        self._held.append(news)
        if time.monotonic() - self._sent >= REPORT_SECONDS:
            self.send()

    def ended(self, seconds: float) -> None:
        """Send what is held after a task that took long: it does not wait for the first report of the next."""
        if seconds >= REPORT_SECONDS:
            self.send()

    def send(self) -> None:
        """Send what is held."""
        if self._held:
            self._send(self._held)
            self._held, self._sent = [], time.monotonic()


@contextmanager
def sampled(client: Client, task: str, reporter: UsageReporter | None) -> Iterator[None]:
    """Sample all workers during a block in which they work together, and report the resources of each."""
    if reporter is None:
        yield
        return
    key = uuid.uuid4().hex
    client.run(_begin, key, task, reporter.gpus, on_error="ignore")
    try:
        yield
    except BaseException:
        if client.status == "running":
            with suppress(OSError, RuntimeError):  # of the cluster; the block's own error is the one to raise
                client.run(_end, key, on_error="ignore")
        raise
    # A worker that died meanwhile is left out; one that joined has no start.
    for usage in client.run(_end, key, on_error="ignore").values():
        if usage is not None:
            reporter.report(usage)


# What is sampled on this worker now, by key.
_open: dict[str, tuple[ExitStack, Callable[[], WorkerUsage]]] = {}


def _begin(key: str, task: str, gpus: bool, dask_worker: Any = None) -> None:
    stack = ExitStack()
    _open[key] = stack, stack.enter_context(on_worker(str(dask_worker.name), task, gpus=gpus))


def _end(key: str) -> WorkerUsage | None:
    if key not in _open:
        return None
    stack, usage = _open.pop(key)
    with stack:
        return usage()


def _label(function: Callable[..., object], task: object) -> str:
    return str(getattr(task, "label", function.__name__))


def sent_together(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Numbers of the tasks of each message: as much for every worker, and the longest tasks first.

    Dask deals out messages in turn while it does not know how long they take, so every worker's come in turn here.
    """
    parts = max(MESSAGES, math.ceil(sum(costs) / MOST_SENT / workers))
    load_W, messages = [0.0] * workers, [list[list[int]]() for _ in range(workers)]
    unit = max(sum(costs) / workers / parts, 1e-300)
    for number, cost in enumerate(costs):
        worker = min(range(workers), key=lambda one: (load_W[one], len(messages[one])))
        if not messages[worker] or load_W[worker] + cost / 2 > unit * len(messages[worker]):
            messages[worker].append([])
        messages[worker][-1].append(number)
        load_W[worker] += cost
    return [message for turn in zip_longest(*messages) for message in turn if message]


def run_on_dask(
    function: Callable[[Task, TaskControl], Result],
    tasks: Sequence[Task],
    scheduler: str,
    on_news: News | None,
    reporter: UsageReporter | None = None,
    together: Sequence[Sequence[int]] = (),
) -> Iterator[tuple[Task, Result]]:
    """Run tasks on the workers of a scheduler; see `executor.run_tasks`.

    The tasks of a worker that dies run again elsewhere, and workers that join late take what has not started. The
    tasks' labels are the names on Dask's dashboard. `together` has the numbers of each message's tasks (none: each task
    alone).

    Raises:
        RunError: the scheduler does not answer or vanishes, no worker is there, or workers die of the same task.
    """
    with connect(scheduler) as client:
        inbox: queue.SimpleQueue[tuple[Future | None, Any]] = queue.SimpleQueue()
        topic = f"eravane-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, lambda event: inbox.put((None, pickle.loads(event[1]))))
        run = _Remote(function, topic, reporter is not None and reporter.gpus)
        waiting: dict[str, tuple[Sequence[Task], Future]] = {}
        for number, places in enumerate(together or [[place] for place in range(len(tasks))]):
            sent = [tasks[place] for place in places]
            more = f" and {len(sent) - 1} more" if len(sent) > 1 else ""
            key = f"{_label(function, sent[0])}{more}-{uuid.uuid4().hex}"
            future = client.submit(run, sent, key=key, priority=-number, pure=False)
            waiting[key] = sent, future
            future.add_done_callback(lambda done: inbox.put((done, None)))
        try:
            for task, (result, usage) in _collect(client, scheduler, waiting, inbox, on_news):
                if reporter is not None:
                    reporter.report(usage)
                yield task, result
        finally:
            if waiting and client.status == "running":
                with suppress(Exception):  # of a cluster that is gone; the error that is being raised names that
                    futures = [future for _, future in waiting.values()]
                    bounded(lambda: client.cancel(futures, force=True), CONNECT_SECONDS)


def _collect(
    client: Client,
    scheduler: str,
    waiting: dict[str, tuple[Sequence[Task], Future]],
    inbox: queue.SimpleQueue[tuple[Future | None, Any]],
    on_news: News | None,
) -> Iterator[tuple[Task, Any]]:
    seen, heartbeats = time.monotonic(), Heartbeats(client, scheduler)
    while waiting:
        heartbeats.check()
        try:
            done, news = inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            seen = _still_there(client, scheduler, seen)
            continue
        if done is None:
            if on_news is not None:
                for report in news:
                    on_news(report)
            continue
        if done.key in waiting:
            results = _result(done, scheduler)
            yield from zip(waiting.pop(done.key)[0], results, strict=True)


def _result(future: Future, scheduler: str) -> Any:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    try:
        return future.result(timeout=CONNECT_SECONDS * 60)
    except KilledWorker as error:
        last = error.last_worker
        limit = f" with {format_size(last.memory_limit)} allowed (--memory-limit)" if last.memory_limit else ""
        raise RunError(
            f"Dask gave up on {error.task.rpartition('-')[0]!r}: {error.allowed_failures + 1} workers died of it, the "
            f"last {last.address}{limit}, most likely out of memory; give workers more memory, or train on fewer eras "
            "(zoo.window, zoo.every)"
        ) from error
    except (FutureCancelledError, OSError) as error:
        raise RunError(_vanished(scheduler)) from error


def _still_there(client: Client, scheduler: str, seen: float) -> float:
    """Last time that the scheduler and a worker answered; raises once that is too long ago."""
    if client.status == "running" and known_workers(client, scheduler):
        return time.monotonic()
    if client.status == "closed" or time.monotonic() - seen > PATIENCE_SECONDS:
        if client.status == "running":
            raise RunError(_idle(scheduler))
        raise RunError(_vanished(scheduler))
    return seen


def _idle(scheduler: str) -> str:
    return f"the Dask scheduler at {scheduler} has no workers; start some and continue with --resume"


def _vanished(scheduler: str) -> str:
    return (
        f"the Dask scheduler at {scheduler} is gone; finished models are in the cache: continue with --resume when it "
        "runs again"
    )
