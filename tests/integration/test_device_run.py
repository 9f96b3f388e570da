"""A whole run on doubles of the GPU's libraries, its kernels emulated: trees and predictions of the run on the CPU."""

from __future__ import annotations

import importlib
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from eravane.backend.protocol import DeviceTable
from eravane.core.config import parse_config
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.data import resident
from eravane.data.store.segments import Segment
from eravane.data.store.window import Window
from eravane.learners import xgboost
from eravane.pipeline.batch import run
from tests.support import device_double as double
from tests.support.emulator import compiler_missing
from tests.support.emulator.arrays import DeviceArray
from tests.support.micro import MICRO

pytestmark = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())


@pytest.mark.parametrize(
    ("update", "depth", "room"),
    [
        pytest.param("refit", 2, double.MEMORY, marks=pytest.mark.full),
        ("append", 8, double.MEMORY),
        ("append", 2, 50_000),
    ],
)
def test_a_run_on_the_device_is_the_run_on_the_cpu(
    micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: str, depth: int, room: int
) -> None:
    """Trees of depth 8 are deeper than those whose splits rows are held against; XGBoost predicts none of them.

    A device with less room than the store takes has its eras streamed.
    """
    trees = 1 if depth > 7 else MICRO["zoo"]["trees"]  # the emulator takes long over many nodes
    zoo = {
        **MICRO["zoo"],
        "trees": trees,
        "learner": "levels",
        "params": {"max_depth": depth, "eta": 0.3, "colsample_bytree": 0.5},
    }
    loop = {"update": update, "every": 8, "append_trees": trees}
    runs, noted, held = _on_both(micro_data, {**MICRO, "zoo": zoo, "loop": loop}, tmp_path, monkeypatch, room)
    assert held.resident_bytes == 0  # given back at the end of the run
    size = held.store.index.rows * len(held.store.columns)
    if room > size:
        assert any("all 24 columns stay on the device" in note for note in noted["cuda"])
        assert held.uploads == dict.fromkeys(held.store.columns, 1)
        assert held.sent_bytes == size
    else:
        assert any("eras are streamed to the device" in note for note in noted["cuda"])
        assert not held.uploads
        assert held.sent_bytes > size
    _assert_alike(runs)


def test_leaves_are_renewed_and_all_eras_predicted_without_features_on_the_host(
    micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default leaves are re-estimated between refits; no host reads features once they are sent."""
    zoo = {**MICRO["zoo"], "learner": "levels", "params": {"max_depth": 3, "eta": 0.3, "colsample_bytree": 0.5}}
    runs, _, held = _on_both(micro_data, {**MICRO, "zoo": zoo}, tmp_path, monkeypatch)
    assert held.uploads == dict.fromkeys(held.store.columns, 1)
    _assert_alike(runs)


def test_a_run_of_floats_on_the_device_is_the_run_on_the_cpu(
    micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XGBoost grows these trees, here on the host in place of a GPU, and predicts none of them."""
    data = _of_floats(micro_data, tmp_path / "data")
    monkeypatch.setattr(xgboost, "check_device", lambda *_: None)
    real = xgboost.quantile_matrix

    def quantile_matrix(table: Any, params: Any) -> Any:
        if isinstance(table, DeviceTable):
            columns = [np.array(column, subok=False) for column in table.values_CN]
            table = pa.table(dict(zip(table.names, columns, strict=True)))
        return real(table, params)

    monkeypatch.setattr(xgboost, "quantile_matrix", quantile_matrix)
    zoo = {**MICRO["zoo"], "learner": "xgboost", "params": {"max_depth": 3, "eta": 0.3}}
    loop = {"every": 8, "leaves_every": 4}
    few = {"feature_sets": ["small"]}  # quantiles of floats take the emulator long
    runs, _, held = _on_both(data, {**MICRO, "data": few, "zoo": zoo, "loop": loop}, tmp_path, monkeypatch)
    assert held.store.dtype == "float32"
    assert held.uploads == dict.fromkeys(held.store.columns, 1)
    _assert_alike(runs)


def test_a_device_too_small_for_a_cell_ends_a_run_in_one_sentence(
    micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = {**MICRO["zoo"], "learner": "levels", "params": {"max_depth": 2}}
    config = parse_config({**MICRO, "zoo": zoo, "compute": {"device": "cuda"}})
    what = r"^all\.all to era \d+ needs about [\d.]+ .B on cuda \([\d,]+ rows x 24 features\): a matrix of 24 columns x"
    with _device(5_000, monkeypatch), pytest.raises(OutOfDeviceMemoryError, match=what) as refused:
        run(micro_data, config, tmp_path / "run", cache=tmp_path / "cache")
    assert re.search(r"the GPU has [\d.]+ k?B free", str(refused.value))
    assert "train on fewer eras (zoo.window, zoo.every), fewer models at a time (compute.workers)" in str(refused.value)


def _of_floats(source: Path, folder: Path) -> Path:
    """A dataset with a little noise on its levels."""
    shutil.copytree(source, folder)
    for number, path in enumerate(sorted(folder.glob("*.parquet"))):
        table, random = pq.read_table(path), np.random.default_rng(number)
        for place, name in enumerate(table.column_names):
            if name.startswith("feature_"):
                values = table[name].to_numpy() + random.normal(0, 0.1, len(table))
                table = table.set_column(place, name, pa.array(values.astype(np.float32)))
        pq.write_table(table, path)
    return folder


def _on_both(
    data: Path, config: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int = double.MEMORY
) -> tuple[dict[str, Path], dict[str, Any], resident.Resident]:
    """Folders and notes of a run on either device, and the features that lay on the emulated one.

    Where all of them fit there, neither XGBoost nor the host reads them once they are sent.
    """
    made: list[resident.Resident] = []

    class Noted(resident.Resident):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(resident, "Resident", Noted)
    runs, noted = {}, {}
    with _device(room, monkeypatch):
        for device in ("cpu", "cuda"):
            chosen = parse_config({**config, "compute": {"device": device, "workers": 2}})
            with monkeypatch.context() as patched:
                if device == "cuda" or config["zoo"]["learner"] == "levels":  # floats on the CPU are XGBoost's
                    for name in ("predict", "inplace_predict"):
                        patched.setattr(xgb.Booster, name, lambda *_, **__: pytest.fail("XGBoost predicts"))
                if device == "cuda" and room == double.MEMORY:
                    _keep_features_there(patched)
                done = run(data, chosen, folder / device, cache=folder / f"{device}-cache")
            runs[device], noted[device] = done.path, done.notes
    (held,) = (one for one in made if one.backend.name == "cuda")
    return runs, noted, held


@contextmanager
def _device(room: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Doubles of the GPU's libraries, with so many bytes of memory that can be taken."""
    with double.installed():
        module = importlib.import_module("eravane.backend.cuda")
        monkeypatch.setattr(module.CudaBackend, "torch_device", "cpu")
        free = importlib.import_module("eravane.backend.cuda_memory").RESERVE_BYTES + room
        monkeypatch.setattr(module.cp.cuda.runtime, "memGetInfo", lambda: (free, free))
        monkeypatch.setattr(module.cp, "ndarray", (double.Array, DeviceArray))  # what the backend and the kernels make
        yield


def _keep_features_there(patched: pytest.MonkeyPatch) -> None:
    """Fail where the host reads features: from the device, or from the store once the first were sent, but to send."""
    state = threading.local()
    begun = threading.Event()

    def guarded(real: Any) -> Any:
        def get(array: Any, *given: Any, **named: Any) -> Any:
            if array.ndim == 2 and array.dtype in (np.int8, np.float32):
                pytest.fail(f"features come to the host, {array.shape}")
            return real(array, *given, **named)

        return get

    for kind in (double.Array, DeviceArray):
        patched.setattr(kind, "get", guarded(kind.get))
    send = Window.send

    def sending(*given: Any) -> None:
        begun.set()
        state.sends = True
        send(*given)
        state.sends = False

    patched.setattr(Window, "send", sending)

    def values(segment: Segment) -> Any:
        if begun.is_set() and not getattr(state, "sends", False):
            pytest.fail("the host reads features from the store")
        return segment.features.values

    patched.setattr(Segment, "values", property(values))
    patched.setattr(Segment, "arrow", lambda *_: pytest.fail("the host makes a table of features"))


def _assert_alike(runs: dict[str, Path]) -> None:
    models = {device: {path.name for path in (folder / "models").glob("*.ubj")} for device, folder in runs.items()}
    assert models["cuda"] == models["cpu"]  # named by their content
    for name in ("oof", "base_predictions"):
        assert (runs["cuda"] / f"{name}.parquet").read_bytes() == (runs["cpu"] / f"{name}.parquet").read_bytes()
    # Statistics round in the last place, on which the gate's networks are trained.
    ours, theirs = (pd.read_parquet(folder / "weights.parquet").set_index("era") for folder in runs.values())
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=1e-3)
