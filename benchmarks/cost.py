"""Error of the cost model: predicted against measured core time, memory and disk, on runs of several sizes.

The factor is whichever of predicted / measured and measured / predicted is above 1. Core time is CPU time, which on a
busy machine still depends on who shares the caches; it was measured on one, and so were the rates.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import eravane
from benchmarks.harness import Result, off, say
from eravane.core.config import RunConfig, parse_config
from eravane.learners.levels import Levels
from eravane.learners.registry import load_booster, predict
from eravane.learners.xgboost import XGBoost, resolve_params
from eravane.pipeline.demo import demo_config
from eravane.planning.cost import CostPlan, plan_cost
from eravane.planning.rates import CPU_CORE, HOST, LEVELS_CORE
from eravane.planning.shape import read_shape
from eravane.planning.workload import Hardware
from eravane.report import load_run
from eravane.synth import PRESETS, SynthConfig, synthesise

# Stages of the plan, and the timed ones of a run that they cover.
COVERED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ingest": (("ingest",), ("ingest", "verify")),
    "zoo": (("zoo matrices", "zoo trees", "predictions"), ("zoo",)),
    "loop": (("loop",), ("first models", "history", "loop")),
}
# Rows, columns, trees, depth.
SIZES = ((2_000, 40, 60, 4), (10_000, 240, 40, 5), (60_000, 40, 40, 5), (60_000, 600, 10, 5), (20_000, 1_200, 20, 6))
WIDE = {
    "time": {"loop_eras": 20},
    "zoo": {"trees": 60, "fold_eras": 20, "folds": 2, "minimum_eras": 10},
    "gate": {"seeds": 3},
    "loop": {"every": 10},
}
WORLD = SynthConfig(eras=80, rows=400, features=800, snr=0.3)
RUNS: Mapping[str, tuple[SynthConfig, RunConfig]] = {
    "tiny": (PRESETS["tiny"], demo_config("tiny")),
    "demo": (PRESETS["small"], demo_config("small")),
    "wide": (WORLD, parse_config(WIDE)),
    "levels": (WORLD, parse_config(WIDE | {"zoo": WIDE["zoo"] | {"learner": "levels"}})),
}


def main(quick: bool) -> list[Result]:
    """Factors by part of the zoo and by stage of whole runs."""
    sizes, runs = (SIZES[:1], ("tiny",)) if quick else (SIZES, tuple(RUNS))
    with tempfile.TemporaryDirectory() as folder:
        list(run("tiny", Path(folder)))  # a fresh checkout compiles its kernels
    results = [result for size in sizes for result in parts(*size)]
    for name in runs:
        with tempfile.TemporaryDirectory() as folder:
            say(f"cost: {name}")
            results += run(name, Path(folder))
    return results


def parts(rows: int, columns: int, trees: int, depth: int) -> Iterator[Result]:
    """A matrix, its trees and their predictions, one thread."""
    rng = np.random.default_rng(0)
    x_CN = rng.integers(0, 5, (columns, rows)).astype(np.int8)
    label_N = (0.5 + 0.05 * rng.normal(size=rows)).astype(np.float32)
    table = pa.table({f"f{number}": pa.array(column) for number, column in enumerate(x_CN)})
    params, _ = resolve_params({"max_depth": depth}, "cpu")
    learner, size = XGBoost(params), f"{rows}x{columns}"
    matrix, binned = timed(lambda: learner.matrix(table))
    block, grown = timed(lambda: learner.fit(matrix, label_N, None, trees=trees, seed=0))
    many = np.tile(x_CN[:, :5_000], 40_000 // min(rows, 5_000))
    _, predicted = timed(lambda: predict([load_booster(block)], many))
    yield off(f"matrix_{size}", CPU_CORE.to_bin(rows, columns), binned, "s")
    yield off(f"tree_{size}_depth_{depth}", CPU_CORE.to_grow(rows, columns, depth), grown / trees, "s")
    asked = HOST.to_unfold(many.shape[1], columns, trees, depth)
    yield off(f"predict_{size}_{trees}_trees", asked, predicted, "s")
    levels, _ = Levels.make({"max_depth": depth}, "cpu")
    columns_here = levels.matrix(table)
    _, grown = timed(lambda: levels.fit(columns_here, label_N, None, trees=trees, seed=0))
    yield off(
        f"levels_tree_{size}_depth_{depth}", LEVELS_CORE.to_grow(rows, max(1, columns // 10), depth), grown / trees, "s"
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and its CPU seconds: the median of three, after one to warm up."""
    given, taken = call(), []
    for _ in range(3):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return given, statistics.median(taken)


def run(name: str, folder: Path) -> Iterator[Result]:
    """A whole run on made data against its plan."""
    made, config = RUNS[name]
    synthesise(folder / "data", made)
    shape = read_shape(folder / "data", config)
    plan = plan_cost(config, shape, Hardware("cpu", 2, 0, math.inf, math.inf))
    eravane.run(config, data=folder / "data", out=folder / "run", cache=folder / "cache")
    used = load_run(folder / "run").events
    work = {stage.name: stage.work for stage in plan.stages}
    spent = {event["stage"]: event["cpu"] for event in used if "cpu" in event}
    for stage, (planned, timed_stages) in COVERED.items():
        yield off(
            f"{name}_{stage}", sum(map(work.__getitem__, planned)), sum(map(spent.__getitem__, timed_stages)), "s"
        )
    whole = sum(part for stage, part in work.items() if stage != "live")
    yield off(f"{name}_all", whole, sum(spent.values()), "s")
    yield off(f"{name}_memory", plan.memory / 1e9, max(event.get("peak_bytes", 0) for event in used) / 1e9, "GB")
    yield off(f"{name}_disk", plan.disk / 1e6, _size(folder / "run", folder / "cache") / 1e6, "MB")
    yield _wall(name, plan, used)


def _wall(name: str, plan: CostPlan, used: Sequence[Mapping[str, Any]]) -> Result:
    """Wall time, for information: it counts what other programs take."""
    passed = sum(event["seconds"] for event in used if event["event"] in ("stage", "era"))
    detail = f"measured over predicted {plan.seconds:.1f} s, other programs' share included"
    return Result(f"{name}_wall", passed / plan.seconds, "x", None, "lower", detail)


def _size(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
