"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eravane.core.memory import available_memory
from tests.support.shared import Runs, Shared

# No test asks the real tournament anything; those that need one set the address of a double.
os.environ["ERAVANE_TOURNAMENT"] = "off"

# Folders of tests: a run syncs hundreds of files, which a disk takes milliseconds for, each. A whole session has held
# half a gigabyte of them; those of tests that passed are deleted at their end.
MEMORY, ROOM = Path("/dev/shm"), 2 << 30


def _folders_in_memory() -> bool:
    """Whether memory has room for all that tests write, and lets what they write be run."""
    try:
        place = os.statvfs(MEMORY)
    except OSError:
        return False
    free = place.f_bavail * place.f_frsize
    return not place.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK) and free > ROOM < available_memory() // 3


if _folders_in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Folders with the longest files, some of which are few tests: begun first, that no worker is alone with one at the end.
LONG = {"integration", "cli", "cluster", "architecture", "benchmarks", "runstate", "report"}
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shuffle SEED` runs files, and the tests in each, in another order."""
    parser.addoption("--shuffle", type=int, default=None, metavar="SEED", help="run the tests in a random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first, or shuffled where that is asked for; skip tests marked `gpu` where no CUDA device works."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))
    if (seed := config.getoption("--shuffle")) is not None:
        draw = random.Random(seed)
        files = {item.path: draw.random() for item in items}
        order = {item: (files[item.path], draw.random()) for item in items}
        items.sort(key=order.__getitem__)
    reason = _no_gpu()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Modules and tests stay: the collector, which would look through them again and again, leaves them out."""
    gc.collect()
    gc.freeze()


def _no_gpu() -> str | None:
    try:
        import cupy
    except ImportError:
        return "needs a GPU: cupy is not installed"
    return None if cupy.cuda.is_available() else "needs a GPU: cupy finds no CUDA device"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Folders that are made once for all workers: each has a base of its own in that of the session."""
    base = tmp_path_factory.getbasetemp()
    return Shared((base.parent if base.name.startswith("popen-") else base) / "shared")


@pytest.fixture(scope="session")
def runs(shared: Shared) -> Runs:
    """Finished runs by configuration, made once for all workers."""
    return Runs(shared)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """SIGINT ends a program, as at a terminal; what a script starts in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def sample_2018() -> Path:
    """The 1 % sample of real Numerai rows of 2018, where it lies beside the checkout."""
    path = SHARED / "data" / "numerai-2018-sample"
    if not path.is_dir():
        pytest.skip("the 2018 sample of real rows is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def real_features_json() -> Path:
    """The features.json of v5.3, where it lies beside the checkout."""
    path = SHARED / "data" / "numerai-v5.3-features.json"
    if not path.is_file():
        pytest.skip("the real features.json of v5.3 is not beside this checkout")
    return path
