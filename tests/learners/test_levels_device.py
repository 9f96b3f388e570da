"""The level grower on a GPU, as a learner: the models of the CPU to the byte, and what it says where it cannot grow.

The kernels run in the emulator; on a machine with a GPU they run there.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eravane.backend.cpu import CpuBackend
from eravane.backend.protocol import DeviceTable
from eravane.core.config import PrepareConfig, parse_config
from eravane.core.errors import ConfigError, DeviceError, RunError
from eravane.data.features import Features
from eravane.data.resident import forget, resident
from eravane.learners.forest import device_bytes
from eravane.learners.levels import Levels
from eravane.learners.protocol import GrowsTogether, Learner, OutOfDeviceMemoryError
from eravane.learners.registry import make_learner
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import train
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import Rules
from tests.support import device_double as double
from tests.support.emulator.devices import ANY_DEVICE, on
from tests.support.zoo_case import configured, make_case

ROWS, COLUMNS = 1_400, 12


@pytest.fixture(params=ANY_DEVICE)
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A device whose kernels run, its libraries doubles where there is none."""
    with on(request.param):
        if request.param == "gpu":
            yield request.param
            return
        with double.installed():
            yield request.param


def learner(where: str, **params: Any) -> Learner:
    """The level grower with some parameters."""
    return make_learner(parse_config({"zoo": {"learner": "levels", "params": params}}).zoo, where)[0]


def made(missing: float) -> tuple[np.ndarray, np.ndarray]:
    """Levels, and three targets of which some rows are unknown."""
    rng = np.random.default_rng(8)
    values_CN = rng.integers(0, 5, (COLUMNS, ROWS)).astype(np.int8)
    values_CN[rng.random(values_CN.shape) < missing] = -1
    label_BN = 0.5 + 0.1 * (values_CN[:3] - 2) * (values_CN[3:6] - 2) + 0.1 * rng.normal(size=(3, ROWS))
    label_BN[rng.random(label_BN.shape) < 0.1] = np.nan
    return values_CN, label_BN.astype(np.float32)


def names() -> list[str]:
    return [f"feature_{number}" for number in range(COLUMNS)]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_models_are_those_of_the_cpu_to_the_byte(weighed: bool, missing: float, share: float) -> None:
    values_CN, label_BN = made(missing)
    weight_N = np.random.default_rng(1).random(ROWS).astype(np.float32) if weighed else None
    params = {"colsample_bytree": 0.4, "subsample": share, "max_depth": 3, "eta": 0.3}
    table = pa.table(dict(zip(names(), values_CN, strict=True)))
    tables = {"cpu": table, "cuda": DeviceTable(upload(values_CN), tuple(names()))}
    blocks: dict[str, list[bytes]] = {}
    for where, columns in tables.items():
        grower = learner(where, **params)
        matrix = grower.matrix(columns)
        assert isinstance(grower, GrowsTogether)
        blocks[where] = grower.fit_together(matrix, label_BN, weight_N, trees=6, seed=3)
        margin_N = label_BN[1] - label_BN[1] + 0.25
        continued = grower.fit(matrix, label_BN[0], weight_N, trees=4, seed=4, margin_N=np.nan_to_num(margin_N))
        blocks[where].append(continued)
    assert blocks["cpu"] == blocks["cuda"]


@pytest.mark.usefixtures("device")
def test_a_task_of_the_zoo_ends_in_the_bytes_of_the_cpu(tmp_path: Path) -> None:
    """From the store to the device by the engine's own way; several targets and weights that fall with age."""
    zoo = {"learner": "levels", "targets": ("target_cyrusd_20", "target_jasper_20"), "half_life": 20.0}
    zoo["params"] = {"max_depth": 3, "eta": 0.2, "colsample_bytree": 0.4, "subsample": 0.7}
    case = make_case(tmp_path, zoo=zoo)
    trained = {}
    for where in ("cpu", "cuda"):
        made = Zoo(case.store.path, configured(zoo=zoo), case.timeline, xgboost_device=where, cache=None)
        task = min(made.fold_tasks(case.specs), key=lambda task: task.cost)
        assert task.learner.device == where
        trained[where] = train(task)
    assert len(trained["cpu"].blocks) > 1
    assert trained["cpu"].blocks == trained["cuda"].blocks
    for name, predicted_N in trained["cpu"].predictions.items():
        np.testing.assert_array_equal(trained["cuda"].predictions[name], predicted_N)
    assert {done.device for done in trained["cuda"].finished} == {"cuda"}


@pytest.mark.usefixtures("device")
def test_models_that_do_not_fit_together_grow_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = {"learner": "levels", "targets": ("target_cyrusd_20", "target_jasper_20")}
    zoo["params"] = {"max_depth": 2, "colsample_bytree": 0.4}
    case = make_case(tmp_path, zoo=zoo)
    zoo_there = Zoo(case.store.path, configured(zoo=zoo), case.timeline, xgboost_device="cuda", cache=None)
    task = min(zoo_there.fold_tasks(case.specs), key=lambda task: task.cost)
    wanted, grow, tried = train(task), Levels.fit_together, list[int]()

    def short(self: Levels, matrix: Any, label_BN: np.ndarray, *given: Any, **named: Any) -> list[bytes]:
        tried.append(len(label_BN))
        if len(label_BN) > 1:
            raise OutOfDeviceMemoryError("too little")
        return grow(self, matrix, label_BN, *given, **named)

    monkeypatch.setattr(Levels, "fit_together", short)
    assert train(task).blocks == wanted.blocks
    assert tried.count(1) == len(wanted.blocks)


class Board(CpuBackend):
    """A device with a certain memory."""

    name = "board"

    def __init__(self, size: int) -> None:
        self.size = size

    def room(self) -> int:
        """Its memory."""
        return self.size


@pytest.mark.parametrize(("spare", "mode"), [(1.2, "whole"), (0.6, "columns"), (0.0, "eras")])
def test_features_stay_in_what_the_largest_task_leaves(tmp_path: Path, spare: float, mode: str) -> None:
    case = make_case(tmp_path, zoo={"learner": "levels"})
    config = configured(zoo={"learner": "levels"})
    zoo = Zoo(case.store.path, config, case.timeline, xgboost_device="cpu", cache=None)
    narrow = [spec for spec in case.specs if len(spec.columns) < 0.5 * len(case.store.columns)]
    tasks = zoo.fold_tasks(narrow) + zoo.start_tasks(narrow, case.timeline.last_era)
    chosen = min(config.selection.most, len(narrow))
    largest = max(task.bytes_needed(1) for task in tasks) + device_bytes(config.zoo.trees * chosen, zoo.learner.params)
    column = -(-case.store.index.rows // 128) * 128
    backend = Board(int(largest + spare * column * len(case.store.columns)))
    zoo.memory_budget = backend.size
    opened = Features.open(case.store.path, PrepareConfig(), backend)
    opened.raw(case.store.index.first)
    try:
        kept = zoo.keep_features(backend, narrow)
        assert kept.mode == mode
        assert kept.bytes + largest <= backend.size
        assert zoo.memory_budget == max(1, backend.size - kept.bytes)
        # What was opened before reads from the same memory as what is opened later.
        np.testing.assert_array_equal(opened.raw(3), Features.open(case.store.path, PrepareConfig()).raw(3))
        held = resident(case.store, backend)
        assert held.kept == kept
        assert held.sent_bytes > 0
        sent = held.sent_bytes
        np.testing.assert_array_equal(Features.open(case.store.path, PrepareConfig(), backend).raw(3), opened.raw(3))
        assert (held.sent_bytes == sent) == (mode == "whole")
    finally:
        forget(case.store, "board")


@pytest.mark.usefixtures("device")
def test_the_matrix_takes_half_a_byte_a_cell() -> None:
    values_CN = upload(made(0.0)[0])
    matrix = learner("cuda").matrix(DeviceTable(values_CN, tuple(names())))
    assert matrix.columns.half_CB.nbytes == COLUMNS * -(-ROWS // 256) * 128
    assert matrix.columns.rows == ROWS
    assert matrix.names == tuple(names())


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 9), np.float32), "needs features of integer levels, given float32"),
        (np.full((2, 9), 5, np.int8), r"expected levels 0\.\.4 or -1 .*, given 5"),
    ],
)
def test_other_features_are_for_xgboost(values: np.ndarray, message: str) -> None:
    with pytest.raises(RunError, match=f'{message}.*zoo.learner = "xgboost"'):
        learner("cuda").matrix(DeviceTable(upload(values), ("a", "b")))


def test_without_cupy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "eravane.backend.cuda", raising=False)
    with pytest.raises(DeviceError, match="with cupy, which is not installed; install eravane with the extra cu12"):
        learner("cuda").matrix(DeviceTable(np.zeros((1, 2), np.int8), ("a",)))


@pytest.mark.usefixtures("device")
def test_too_little_memory_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    values_CN, label_BN = made(0.0)
    grower = learner("cuda")
    matrix = grower.matrix(DeviceTable(upload(values_CN), tuple(names())))

    def none_left(*_: Any, **__: Any) -> None:
        raise MemoryError("Out of memory allocating 9,999 bytes")

    monkeypatch.setattr(importlib.import_module("eravane_kernels.cuda.boosting"), "Grower", none_left)
    with pytest.raises(OutOfDeviceMemoryError, match="ran out of memory on cuda: Out of memory allocating 9,999"):
        grower.fit(matrix, label_BN[0], None, trees=1, seed=0)


def arrays_of(held: object) -> Iterator[Any]:
    """Arrays of the device that an object of the kernels holds, itself or through others."""
    if isinstance(held, active().xp.ndarray):
        yield held
    elif isinstance(held, list):
        yield from itertools.chain.from_iterable(map(arrays_of, held))
    elif type(held).__module__.startswith("eravane_kernels"):
        yield from arrays_of([*vars(held).values()])


@pytest.mark.usefixtures("device")
def test_memory_is_as_stated() -> None:
    values_CN, label_BN = made(0.0)
    rows = 40 * ROWS
    values_CN, label_BN = np.tile(values_CN, 40), np.tile(label_BN, 40)
    grower = learner("cuda", colsample_bytree=1.0)
    from eravane_kernels.cuda.boosting import Boosting

    matrix = grower.matrix(DeviceTable(upload(values_CN), tuple(names())))
    boosting = Boosting(
        matrix.columns,
        Rules(max_depth=grower.params["max_depth"]),
        label_BN,
        np.full(rows, 0.3, np.float32),
        np.zeros_like(label_BN),
        seed=0,
        chosen=COLUMNS,
    )
    boosting.grow(1)
    taken = {id(array): array.nbytes for array in arrays_of(boosting)}
    assert grower.bytes_needed(rows, COLUMNS, 1, 3) == pytest.approx(values_CN.nbytes + sum(taken.values()), rel=0.02)


def test_unknown_parameters_are_refused_there_too() -> None:
    with pytest.raises(ConfigError, match="colsample_bynode is not known"):
        learner("cuda", colsample_bynode=0.5)
