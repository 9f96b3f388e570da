"""Whether a Dask cluster can do the work, and whether it still answers: versions, frozen workers, frozen schedulers."""

from __future__ import annotations

import logging
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from eravane import __version__
from eravane.core.errors import RunError, StoreError
from eravane.data.store.store import EraStore

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("eravane")
Value = TypeVar("Value")

# Seconds without a heartbeat after which a worker's tasks go to others, and without an answer of the scheduler after
# which it counts as gone. Heartbeats come twice a second, from a thread of their own.
SILENT_SECONDS = 45.0
# What must agree, beside Python's minor version: a task's pickled parts and the bytes of a model depend on it.
PACKAGES = ("eravane", "xgboost", "distributed")


def bounded(call: Callable[[], Value], seconds: float) -> Value:
    """The result of a call that may never return.

    Raises:
        TimeoutError: it did not return in time; it continues in a thread that is not joined.
    """
    box = queue.SimpleQueue[tuple[Value | None, BaseException | None]]()

    def ask() -> None:
        try:
            box.put((call(), None))
        except Exception as error:
            box.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        value, error = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def known_workers(client: Client, scheduler: str) -> dict[str, Any]:
    """The scheduler's facts of every worker, by address.

    Raises:
        RunError: the scheduler does not answer.
    """
    try:
        workers: dict[str, Any] = bounded(lambda: client.scheduler_info(n_workers=-1)["workers"], SILENT_SECONDS)
    except TimeoutError:
        raise RunError(_silent(scheduler)) from None
    return workers


def _silent(scheduler: str) -> str:
    return (
        f"the Dask scheduler at {scheduler} has not answered for {SILENT_SECONDS:.0f} s; finished models are in the "
        "cache: continue with --resume when it runs again"
    )


def check_versions(client: Client, scheduler: str) -> None:
    """Check that scheduler and workers run what this process runs.

    Raises:
        RunError: one does not (named, with the versions), or the scheduler does not answer.
    """
    try:
        found = bounded(lambda: client.get_versions(check=False, packages=list(PACKAGES)), SILENT_SECONDS)
    except (TimeoutError, OSError) as error:
        raise RunError(f"the Dask scheduler at {scheduler} does not answer: {error}") from error
    wrong = list(_differences(found))
    if wrong:
        raise RunError(
            f"the Dask cluster at {scheduler} does not run what {platform.node()} runs: {'; '.join(wrong[:3])}; "
            "install the same versions everywhere"
        )


def check_store(client: Client, scheduler: str, store: EraStore) -> None:
    """Check that every worker sees the store, with the same content.

    Raises:
        RunError: one does not (its host is named), or the scheduler does not answer.
    """
    path = str(store.path)
    try:
        found = bounded(lambda: client.run(_store_here, path, on_error="return"), SILENT_SECONDS)
    except (TimeoutError, OSError) as error:
        raise RunError(f"the Dask scheduler at {scheduler} does not answer: {error}") from error
    for address, (host, fingerprint) in found.items():
        if fingerprint != store.fingerprint:
            what = "holds other data" if fingerprint else "is not there, or damaged"
            raise RunError(
                f"worker {address} on host {host} cannot train: the store {path} {what} on it, and workers read it "
                "themselves; put --cache (or the store) on a folder that all hosts see under the same path"
            )


def _store_here(path: str) -> tuple[str, str]:
    """This host's name, and the fingerprint of the store that it sees; empty where it sees none."""
    try:
        return platform.node(), EraStore.open(path).fingerprint
    except StoreError:
        return platform.node(), ""


def _differences(found: Mapping[str, Any]) -> Iterator[str]:
    wanted = _of(found.get("client") or {})
    wanted["eravane"] = __version__
    sides = {"the scheduler": found.get("scheduler") or {}}
    sides |= {f"worker {address}": facts or {} for address, facts in (found.get("workers") or {}).items()}
    for side, facts in sides.items():
        have = _of(facts)
        for name, version in wanted.items():
            if have.get(name) != version:
                yield f"{side} has {name} {have.get(name) or 'not installed'}, here it is {version}"


def _of(facts: Mapping[str, Any]) -> dict[str, str | None]:
    python = str(facts.get("host", {}).get("python", ""))
    packages = facts.get("packages", {})
    versions: dict[str, str | None] = {"Python": ".".join(python.split(".")[:2]) or None}
    return versions | {name: packages.get(name) for name in PACKAGES}


class Heartbeats:
    """Looks after a cluster while tasks are out.

    Args:
        client: of the scheduler.
        scheduler: its address, for messages.
    """

    CHECK_EVERY = 5.0

    def __init__(self, client: Client, scheduler: str) -> None:
        self._client, self._scheduler, self._checked = client, scheduler, time.monotonic()

    def check(self) -> None:
        """Take the tasks of workers that went silent away from them, every few seconds.

        Raises:
            RunError: the scheduler does not answer.
        """
        if time.monotonic() - self._checked < self.CHECK_EVERY:
            return
        try:
            facts = bounded(lambda: self._client.run_on_scheduler(_silent_workers()), SILENT_SECONDS)
        except TimeoutError:
            raise RunError(_silent(self._scheduler)) from None
        except Exception as error:  # the connection broke, which the caller's own checks report
            logger.debug("the scheduler could not be asked: %s", error)
            facts = {}
        for address, silent_s in facts.items():
            logger.warning("worker %s has been silent for %.0f s: its tasks go to other workers", address, silent_s)
        self._checked = time.monotonic()


def _silent_workers() -> Callable[..., Any]:
    """Asks the scheduler for workers without a heartbeat, and has it give their tasks to others."""
    limit = SILENT_SECONDS

    async def ask(dask_scheduler: Any = None) -> dict[str, float]:
        import time

        silent = {address: time.time() - worker.last_seen for address, worker in dask_scheduler.workers.items()}
        silent = {address: seconds for address, seconds in silent.items() if seconds > limit}
        for address in silent:
            await dask_scheduler.remove_worker(address, stimulus_id=f"silent-{time.time()}", expected=True, close=False)
        return silent

    return ask
