"""A whole run on doubles of the GPU's libraries, its kernels emulated: trees and predictions of the run on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xgboost as xgb

from eravane.core.config import parse_config
from eravane.data import resident
from eravane.pipeline.batch import run
from tests.support import device_double as double
from tests.support.emulator import compiler_missing
from tests.support.emulator.arrays import DeviceArray
from tests.support.micro import MICRO


@pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())
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
    made: list[resident.Resident] = []

    class Noted(resident.Resident):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(resident, "Resident", Noted)
    monkeypatch.setattr(xgb.Booster, "inplace_predict", lambda *_, **__: pytest.fail("XGBoost predicts"))
    runs, noted = {}, {}
    with double.installed():
        module = importlib.import_module("eravane.backend.cuda")
        monkeypatch.setattr(module.CudaBackend, "torch_device", "cpu")
        free = importlib.import_module("eravane.backend.cuda_memory").RESERVE_BYTES + room
        monkeypatch.setattr(module.cp.cuda.runtime, "memGetInfo", lambda: (free, free))
        monkeypatch.setattr(module.cp, "ndarray", (double.Array, DeviceArray))  # what the backend and the kernels make
        for device in ("cpu", "cuda"):
            config = parse_config({**MICRO, "zoo": zoo, "loop": loop, "compute": {"device": device, "workers": 2}})
            done = run(micro_data, config, tmp_path / device, cache=tmp_path / f"{device}-cache")
            runs[device], noted[device] = done.path, done.notes
    (held,) = (one for one in made if one.backend.name == "cuda")
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
    models = {device: {path.name for path in (folder / "models").glob("*.ubj")} for device, folder in runs.items()}
    assert models["cuda"] == models["cpu"]  # named by their content
    for name in ("oof", "base_predictions"):
        assert (runs["cuda"] / f"{name}.parquet").read_bytes() == (runs["cpu"] / f"{name}.parquet").read_bytes()
    # Statistics round in the last place, on which the gate's networks are trained.
    ours, theirs = (pd.read_parquet(folder / "weights.parquet").set_index("era") for folder in runs.values())
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=1e-3)
