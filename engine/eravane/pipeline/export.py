"""Exporting a run: one pickle that Numerai's hosted prediction runs by itself, without eravane.

This is the one pickle that eravane writes; it never reads one but in `check`, in a process of its own.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from eravane import __version__
from eravane.core.config import PrepareConfig, RunConfig
from eravane.core.errors import RunError
from eravane.core.files import write_atomically
from eravane.data.prepare import TAILS
from eravane.data.store.store import EraStore
from eravane.gate import portable, portable_prepare, portable_weights
from eravane.gate.context import QUANTILES, thinned
from eravane.learners.forest import Predictor
from eravane.learners.protocol import GROW_XGBOOST
from eravane.learners.registry import Trees
from eravane.loop.boosters import INDEX, ModelFolder
from eravane.loop.edition import gate_of
from eravane.loop.pool import read_pool
from eravane.loop.session import saved_state
from eravane.pipeline.environments import Environment, interpreter
from eravane.runstate.runfolder import RunFolder
from eravane.tournament.predictions import read_live_predictions
from eravane_kernels.spec.context import FLAT
from eravane_kernels.spec.mixing import DECIMALS

TOLERANCE = 1e-6
MINOR = ".".join(platform.python_version_tuple()[:2])
# In place of the path of a source file.
SOURCE = "<eravane>"
# Pickled by value, so that the model loads where eravane is not installed.
_BY_VALUE = (portable, portable_prepare, portable_weights)
CHECK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("eravane", "eravane_kernels", "torch", "safetensors"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Absent())
import inspect, pandas
if "%d.%d" % sys.version_info[:2] != sys.argv[4]:
    sys.exit("it was made with Python %s, and %s is of another minor version" % (sys.argv[4], sys.executable))
model, folder, out = sys.argv[1:4]
predict = pandas.read_pickle(model)
names = ("live", "live_benchmark_models")[: len(inspect.signature(predict).parameters)]
frames = [pandas.read_parquet(f"{folder}/{name}.parquet") for name in names]
predict(*(frame.set_index("id") if "id" in frame else frame for frame in frames)).to_csv(out)
"""


@dataclass(frozen=True)
class Exported:
    """A model file.

    Attributes:
        path, size: the pickle and its bytes.
        models: base models in it.
        newest_era: the newest era whose scores are frozen in.
        note: the model's docstring.
        difference: largest difference from the run's live predictions; None when it was not checked.
        pinned: environment -> the same under its versions; empty when these were not tried.
    """

    path: Path
    size: int
    models: int
    newest_era: int | None
    note: str
    difference: float | None = None
    pinned: Mapping[str, float] = field(default_factory=dict)


def export(
    run: Path,
    out: Path,
    *,
    check: bool = False,
    python: str = sys.executable,
    pinned: Sequence[Environment] = (),
    cache: Path = Path(),
) -> Exported:
    """Write a run's newest state as a model for hosted prediction.

    The model takes the live features of the dataset the run was made from, and its live benchmark models where some
    are members of the ensemble; it computes the era's statistics, decides the gates, runs the open models and weighs
    them. Lagged scores are frozen as they are; its docstring names their date, and it warns when they age.

    Arguments and errors as `eravane.api.export`, with the environments to try it in, and the cache to build them in.
    `python` is of this Python's minor version and has cloudpickle, pandas, pyarrow and xgboost.
    """
    if out.suffix != ".pkl":
        raise RunError(f"{out} must end in .pkl, which the tournament's model upload requires")
    folder = RunFolder.open(run)
    payload = _payload(folder)
    content = hosted_model(payload)
    write_atomically(out, content)
    difference = compare(out, run, python) if check else None
    tried = {environment.name: _tried(out, run, environment, cache) for environment in pinned}
    models, newest, note = len(payload["models"]), payload["newest_era"], str(payload["note"])
    return Exported(out, len(content), models, newest, note, difference, tried)


def _tried(out: Path, run: Path, environment: Environment, cache: Path) -> float:
    python = interpreter(environment, cache)
    try:
        return compare(out, run, str(python))
    except RunError as error:
        raise RunError(f"under {environment.name}: {error}") from None


def hosted_model(payload: Mapping[str, object]) -> bytes:
    """The pickle of the function that predicts: what cloudpickle makes of it, nothing is evaluated when it is loaded.

    Its code is bytecode of this Python, and runs under the same minor version alone.
    """
    import cloudpickle

    plain = cloudpickle.Pickler.dispatch_table

    def nameless(code: CodeType) -> object:
        return plain[CodeType](code.replace(co_filename=SOURCE))  # cloudpickle before 3.1 keeps the path

    class Nameless(cloudpickle.Pickler):  # type: ignore[misc]  # the table of an instance is not looked at
        dispatch_table: ClassVar[Mapping[type, Any]] = ChainMap({CodeType: nameless}, plain)

    content, places = io.BytesIO(), [module.__file__ for module in _BY_VALUE]
    for module in _BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
        module.__file__ = SOURCE  # it travels with the functions' globals
    try:
        Nameless(content, protocol=4).dump(portable.assemble(payload))
    finally:
        for module, place in zip(_BY_VALUE, places, strict=True):
            cloudpickle.unregister_pickle_by_value(module)
            module.__file__ = place
    return content.getvalue()


def compare(model: Path, run: Path, python: str = sys.executable) -> float:
    """Run a model file in a fresh interpreter on the run's live rows; largest difference of the predictions.

    Raises:
        RunError: the model fails, or differs by more than 1e-6.
    """
    data = Path(RunFolder.open(run).manifest()["data"]["path"])
    expected = _read_predictions(run / "live_predictions.csv")
    with tempfile.TemporaryDirectory(prefix="eravane-") as scratch:
        out = Path(scratch) / "predictions.csv"
        command = [python, "-I", "-W", "ignore", "-c", CHECK, str(model), str(data), str(out), MINOR]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise RunError(f"{python} cannot be started ({error.strerror}); name a Python interpreter") from None
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RunError(f"{model} fails without eravane: {reason[0]}")
        found = _read_predictions(out)
    if set(found.index) != set(expected.index):
        raise RunError(f"{model} predicts other rows than {run / 'live_predictions.csv'}; is {data} newer?")
    difference = float(np.abs(found.loc[expected.index].to_numpy() - expected.to_numpy()).max())
    if not difference <= TOLERANCE:  # NaN, too
        raise RunError(f"{model} differs from {run / 'live_predictions.csv'} by up to {difference:.2g}")
    return difference


def _read_predictions(path: Path) -> pd.Series:
    if not path.exists():
        raise RunError(f"there are no predictions {path}; was it a Python, and is the run finished?")
    return read_live_predictions(path)[0].set_index("id")["prediction"]


def _payload(folder: RunFolder) -> dict[str, Any]:
    """State of the hosted function, in plain containers and arrays."""
    if not folder.started:
        raise RunError(f"{folder.path} has no checkpoint; its loop has not begun")
    manifest, config = folder.manifest(), folder.config()
    learner = config.zoo.learner
    if learner not in GROW_XGBOOST:
        raise RunError(f"hosted models predict with XGBoost; the base models of {folder.path} are from {learner}")
    store = EraStore.open(manifest["data"]["store"])
    outside, prepare = _outside(folder, config), _prepare(config.prepare, store.dtype)
    arrays, gate, stored = saved_state(folder.path, {"config": folder.known_digests()}, gate_of(config.gate))
    models = gate.models
    names = [model.model_id for model in models]
    columns = _columns(folder.path)
    if set(names) != set(columns) or set(names) != set(stored):
        raise RunError(f"{folder.path / 'models'} does not fit the newest checkpoint; resume the run to its end")
    trees = ModelFolder(folder.path).get(stored, columns)
    places = {name: place for place, name in enumerate(store.columns)}
    positions = {
        name: np.array([places[column] for column in (store.columns if name in outside else columns[name])])
        for name in names
    }
    cells = list(dict.fromkeys((model.feature_set, model.group) for model in models))
    newest = int(arrays["history.era"][-1]) if len(arrays["history.era"]) else None
    return {
        "made": time.time(),
        "newest_era": newest,
        "note": _note(newest, len(models)),
        "columns": list(store.columns),
        "dtype": store.dtype,
        "benchmarks": sorted(outside.values()),
        "models": [
            {
                "id": model.model_id,
                "given": outside.get(model.model_id),
                "columns": positions[model.model_id],
                "cell": cells.index((model.feature_set, model.group)),
                "blocks": [] if model.model_id in outside else portable_blocks(trees[model.model_id].trees),
            }
            for model in models
        ],
        "cells": [
            thinned(next(positions[m.model_id] for m in models if (m.feature_set, m.group) == cell)) for cell in cells
        ],
        "prepare": prepare,
        "neutral": {
            "columns": np.array([places[name] for name in read_pool(folder.path)[1]], dtype=np.int64),
            "proportion": config.postprocess.proportion,
        },
        "gate": gate.frozen() | {"quantiles": QUANTILES, "flat": FLAT, "decimals": DECIMALS},
        "maps": {name.removeprefix("inputs."): array for name, array in arrays.items() if name.startswith("inputs.")},
        "nets": {
            name.removeprefix("scorer."): array.astype(np.float64)
            for name, array in arrays.items()
            if name.startswith("scorer.")
        },
    }


def _outside(folder: RunFolder, config: RunConfig) -> dict[str, str]:
    """Members that are benchmark models of the dataset: model id -> the benchmark's name.

    Raises:
        RunError: a member comes from a file of the user's own.
    """
    outside = {spec.model_id: spec.group for spec in read_pool(folder.path)[0] if spec.outside}
    own = sorted(set(outside.values()) - set(config.zoo.benchmarks))
    if own:
        raise RunError(
            f"a hosted model cannot read the member {own[0]!r}; it gets zoo.benchmarks alone: export a run without it "
            "in zoo.members"
        )
    return outside


def _columns(run: Path) -> dict[str, tuple[str, ...]]:
    path = run / "models" / INDEX
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): tuple(model["columns"]) for name, model in noted.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{path} is missing or damaged; export a finished run") from None


def portable_blocks(trees: Trees) -> list[bytes]:
    """A model's boosters as compressed JSON that every XGBoost from 3.0 on reads alike.

    Since 3.1 XGBoost writes base_score as a vector, "[0E0]"; older ones load that without an error and with 0.5 in
    its place. A scalar is understood by all.
    """
    blocks = []
    for block in trees.blocks:
        content = json.loads(bytes(Predictor(block).booster.save_raw("json")))
        param = content["learner"]["learner_model_param"]
        param["base_score"] = repr(float(str(param["base_score"]).strip("[]")))
        blocks.append(zlib.compress(json.dumps(content).encode(), 6))
    return blocks


def _prepare(config: PrepareConfig, dtype: str) -> dict[str, object]:
    """Preparation of the live era from itself.

    Raises:
        RunError: the preparation reads earlier eras, or the nearest rows.
    """
    detect, levels = config.missing_eras == "impute", dtype == "int8"
    clip = ("none" if levels else "winsorize") if config.outliers == "auto" else config.outliers
    missing = detect or not levels
    unfit = {
        "bounds": config.bounds == "window" and (missing or clip != "none"),
        "impute": config.impute == "knn" and missing,
    }
    for name, wrong in unfit.items():
        if wrong:
            raise RunError(
                f"a hosted model cannot repeat prepare.{name} = {getattr(config, name)!r}; it sees the live era alone "
                "and fills and clips it by its own mean, median, mode or quantiles"
            )
    return {
        "detect": detect and levels,
        "impute": config.impute,
        "constant": config.constant,
        "clip": clip,
        "quantiles": TAILS,
        "k": config.k,
        "indicators": config.indicators,
    }


def _note(newest: int | None, models: int) -> str:
    frozen = f"up to era {newest}" if newest is not None else "of no era yet"
    return (
        f"{models} base models of eravane {__version__}, gated and weighted per era. Made on "
        f"{datetime.now(UTC):%Y-%m-%d} with Python {MINOR}; its lagged scores are frozen {frozen}."
    )
