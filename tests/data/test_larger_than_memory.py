"""A store that fits neither the device nor what the host may still take: its eras are streamed, under a real limit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from eravane.core.config import PrepareConfig
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.learners.forest import Predictor
from tests.support.emulator import compiler_missing

COLUMNS = [f"feature_{number:03d}" for number in range(400)]
ERAS, ROWS = 20, 10_000
ROOM = 32 << 20
"""Bytes that the device has, and that the host may take beyond the program: a third of the store."""

CHILD = """
import hashlib, importlib, re, resource, sys
from pathlib import Path
import numpy as np
from eravane.core.config import PrepareConfig
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.data import resident
from eravane.data.features import Features
from eravane.data.store.store import EraStore
from eravane.learners.forest import Predictor
from tests.support import device_double as double

store, columns, room = EraStore.open(Path(sys.argv[1])), sys.argv[3].split(","), int(sys.argv[4])
with double.installed():
    module = importlib.import_module("eravane.backend.cuda")
    module.STAGING_BYTES = 1 << 20
    free = importlib.import_module("eravane.backend.cuda_memory").RESERVE_BYTES + room
    module.cp.cuda.runtime.memGetInfo = lambda: (free, free)
    backend = module.CudaBackend("none", lambda _note: None)
    held = resident.resident(store, backend, resident.residence(store, "cuda", backend.room(), 400, 400))
    assert held.kept.mode == "eras", held.kept
    features, predictor = Features.open(store.path, PrepareConfig(), backend), Predictor(Path(sys.argv[2]).read_bytes())
    first = next(iter(features.each(1, 1, columns)))
    predictor.output(first.values)  # everything is imported and compiled now
    del first
    taken = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + room, taken + room))
    try:
        np.ones(store.index.rows * len(columns), np.int8)
    except MemoryError:
        print("the host refuses a copy of the store")
    found = hashlib.sha256()
    for frame in features.each(store.index.first, store.index.last, columns):
        found.update(predictor.output(frame.values).tobytes())
    print(found.hexdigest())
    print(held.sent_bytes)
    try:
        held.window(columns, store.index.first, store.index.last)
    except OutOfDeviceMemoryError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the data of a process")
@pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())
def test_eras_are_streamed_under_a_limit_below_the_size_of_the_store(tmp_path: Path) -> None:
    store = ingest(_written(tmp_path / "data"), tmp_path / "store")
    size = store.index.rows * len(COLUMNS)
    assert size > 2 * ROOM
    features = Features.open(store.path, PrepareConfig())
    grown_CN = features.era(1, COLUMNS).values
    label_N = np.random.default_rng(1).random(grown_CN.shape[1])
    booster = xgb.train({"max_depth": 9, "nthread": 1}, xgb.DMatrix(grown_CN.T, label_N), 5)
    block, model = bytes(booster.save_raw("ubj")), tmp_path / "model.ubj"
    model.write_bytes(block)
    expected = hashlib.sha256()
    for frame in features.each(1, ERAS, COLUMNS):
        expected.update(Predictor(block).output(frame.values).tobytes())
    arguments = [str(store.path), str(model), ",".join(COLUMNS), str(ROOM)]
    # Heaps that glibc opens for threads come and go with their timing: one heap holds what the program holds.
    one_heap = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, env=one_heap, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, digest, sent, sentence = done.stdout.splitlines()
    assert refused == "the host refuses a copy of the store"
    assert digest == expected.hexdigest()
    assert int(sent) >= size
    assert sentence.startswith(f"a matrix of {len(COLUMNS)} columns x {size // len(COLUMNS)} rows needs 80.0 MB, ")
    assert sentence.endswith("take fewer eras or columns")


def _written(folder: Path) -> Path:
    """Levels of one era, turned by a row in each of the next; labels are unknown nowhere."""
    folder.mkdir()
    levels_NC = np.random.default_rng(0).integers(0, 5, (ROWS, len(COLUMNS))).astype(np.int8)
    parts = []
    for era in range(1, ERAS + 1):
        part = pd.DataFrame(np.roll(levels_NC, era, axis=0), columns=COLUMNS)
        part.insert(0, "era", f"{era:04d}")
        part.insert(1, "data_type", "train")
        part["target"] = part["target_ender_20"] = np.float32(0.5)
        part.index = pd.Index([f"n{era:06x}{row:06x}" for row in range(ROWS)], name="id")
        parts.append(part)
    for name, chosen in (("train", parts[:-5]), ("validation", parts[-5:])):
        pd.concat(chosen).to_parquet(folder / f"{name}.parquet", row_group_size=2 * ROWS)
    document = {"feature_sets": {"small": COLUMNS[:3], "all": COLUMNS}, "targets": ["target", "target_ender_20"]}
    (folder / "features.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
