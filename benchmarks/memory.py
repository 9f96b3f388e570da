"""Is the memory plan true: what `eravane plan` says against the measured peak, for every learner and preparation.

Each configuration runs in a process of its own, whose anonymous memory is sampled; pages of the store, which the system
can take back, do not count on either side. Trainings are of up to 50,000 rows x 800 features and runs otherwise
small, so that what is planned decides the peak. The plan is to be at least the peak, and at most 1.4 times it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import measure
from benchmarks.harness import Result, say
from eravane.core.config import RunConfig, parse_config
from eravane.planning.cost import plan_cost
from eravane.planning.shape import read_shape
from eravane.planning.workload import Hardware
from eravane.synth import SynthConfig, synthesise

ERAS, ROWS, FEATURES = 60, 1_000, 800
QUICK = (60, 60, 40)
MOST = 1.4
MISSING_SHARE = 0.3
TARGETS = ("target_ender_20", "target_jasper_20", "target_cyrusd_20", "target_ender_60")
BASE: Mapping[str, Mapping[str, Any]] = {
    "data": {"target": "target_ender_20", "feature_sets": ["all"], "feature_groups": ["intelligence"]},
    "time": {"loop_eras": 4},
    "zoo": {"learner": "xgboost", "trees": 2, "folds": 1, "fold_eras": 21, "params": {"max_depth": 3}},
    "selection": {"minimum_corr": -1.0, "most": 3},
    "gate": {"warmup": 4, "rehearsal": 0, "seeds": 1, "steps": 2},
    "loop": {"every": 3},
    "compute": {"device": "cpu", "workers": 1},
}
Changes = Mapping[str, Mapping[str, Any]]


def _learner(name: str, **prepare: Any) -> Changes:
    return {"zoo": {"learner": name}, "prepare": prepare}


# Name -> dataset, and what differs from `BASE`.
RUNS: Mapping[str, tuple[str, Changes]] = {
    "xgboost": ("levels", {}),
    "xgboost, 2 workers": ("levels", {"compute": {"workers": 2}}),
    "xgboost, 4 targets": ("levels", {"zoo": {"targets": TARGETS}}),
    "xgboost, every = 2": ("levels", {"zoo": {"every": 2}}),
    "xgboost, winsorized": ("levels", _learner("xgboost", outliers="winsorize")),
    "xgboost, missing eras imputed": ("levels", _learner("xgboost", missing_eras="impute")),
    "xgboost, indicators": ("levels", _learner("xgboost", missing_eras="impute", indicators=True)),
    "xgboost, trees appended": ("levels", {"loop": {"update": "append", "append_trees": 1}}),
    "xgboost, 150 members": ("levels", {"zoo": {"members": 150}}),
    "xgboost, spread over workers": ("levels", {"compute": {"scheduler": "local", "booster_spans": "cluster"}}),
    "levels": ("levels", _learner("levels")),
    "levels, 4 targets": ("levels", {"zoo": {"learner": "levels", "targets": TARGETS}}),
    "levels, every = 2": ("levels", {"zoo": {"learner": "levels", "every": 2}}),
    "levels, mean +- 2 std": ("levels", _learner("levels", outliers="std", k=2.0)),
    "levels, windows of 4 eras": ("levels", _learner("levels", outliers="mad", bounds="window", window=4)),
    "lightgbm": ("levels", _learner("lightgbm")),
    "lightgbm, every = 2": ("levels", {"zoo": {"learner": "lightgbm", "every": 2}}),
    "lightgbm, median +- MAD": ("levels", _learner("lightgbm", outliers="mad")),
    "xgboost, floats": ("floats", {}),
    "xgboost, floats with NaN": ("floats", _learner("xgboost", impute="none", outliers="none")),
    "lightgbm, floats": ("floats", _learner("lightgbm")),
    "xgboost, floats by neighbours": ("floats", _learner("xgboost", impute="knn", outliers="std")),
}


def main(quick: bool) -> list[Result]:
    """Plan over peak of every configuration; of those that are done where it is interrupted."""
    eras, rows, features = QUICK if quick else (ERAS, ROWS, FEATURES)
    results = []
    with tempfile.TemporaryDirectory(prefix="eravane-memory-") as scratch, suppress(KeyboardInterrupt):
        folder = Path(scratch)
        synthesise(folder / "levels", SynthConfig(eras=eras, rows=rows, features=features, groups=2, snr=0.3))
        _as_floats(folder / "levels", folder / "floats")
        for name in list(RUNS)[:2] if quick else RUNS:
            say(f"memory: {name}")
            results.append(_compared(name, folder))
            say(f"{results[-1].value:.2f} ({results[-1].detail})")
    return results


def _as_floats(source: Path, folder: Path) -> None:
    """The dataset with float features, 30 % of them missing."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for path in source.iterdir():
        if path.suffix != ".parquet" or path.stem not in ("train", "validation", "live"):
            (folder / path.name).write_bytes(path.read_bytes())
            continue
        table = pq.read_table(path)
        for position, name in enumerate(table.column_names):
            if name.startswith("feature"):
                values = table[name].to_numpy() + rng.normal(scale=0.3, size=table.num_rows).astype(np.float32)
                values[rng.random(table.num_rows) < MISSING_SHARE] = np.nan
                table = table.set_column(position, name, pa.array(values.astype(np.float32), from_pandas=True))
        pq.write_table(table, folder / path.name)


def _compared(name: str, folder: Path) -> Result:
    data, changes = RUNS[name]
    config = settings(changes, folder / data, folder)
    shape = read_shape(folder / data, config)
    plan = plan_cost(config, shape, Hardware("cpu", 2, 0, math.inf, math.inf))
    cost = measure("benchmarks.memory:job", name, folder)
    detail = (
        f"plan {plan.memory / 1e9:.2f} GB, peak {cost.peak / 1e9:.2f} GB, with pages of files "
        f"{cost.resident / 1e9:.2f} GB, {cost.cpu:.0f} s of CPU"
    )
    factor = plan.memory / cost.peak
    return Result(name, factor, "x", 1.0 if factor < 1 else MOST, "higher" if factor < 1 else "lower", detail)


def settings(changes: Changes, data: Path, folder: Path) -> RunConfig:
    """The configuration of a run; `members` is how many files of predictions it takes."""
    tables: dict[str, dict[str, Any]] = {name: dict(section) for name, section in BASE.items()}
    for name, section in changes.items():
        tables[name] = {**tables.get(name, {}), **section}
    members = tables["zoo"].get("members")
    if members:
        tables["zoo"]["members"] = dict(_members(int(members), data, folder / "members"))
    return parse_config(tables)


def _members(count: int, data: Path, folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.exists():
        folder.mkdir()
        ids = pd.concat([pd.read_parquet(data / f"{name}.parquet", columns=["id"]) for name in ("train", "validation")])
        rng = np.random.default_rng(1)
        for number in range(count):
            ids.assign(prediction=rng.random(len(ids))).to_parquet(folder / f"m{number}.parquet")
    for number in range(count):
        yield f"m{number}", str(folder / f"m{number}.parquet")


def job(name: str, folder: str) -> None:
    """Run one configuration, in a process of its own."""
    import eravane

    data, changes = RUNS[name]
    place = Path(folder)
    config = settings(changes, place / data, place)
    own = place / "runs" / str(list(RUNS).index(name))  # its own cache: nothing is trained already
    eravane.run(config, data=place / data, out=own / "run", cache=own / "cache")
    shutil.rmtree(own)
