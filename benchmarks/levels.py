"""The level grower against XGBoost and LightGBM: time per tree, memory, threads, models grown together, equal scores.

Bound of a tree of depth 5, per row and sampled column: 5 bytes read, as the columns are read once per level; and an
addition per three cells of the root and of the smaller child of every split, in practice 2.3 passes over the rows, of a
cycle or more each (two loads, and a load and a store of the sum).

Bound of B trees that share their columns: reading these and joining levels is done once for all of them. Before it was
shared it took a sixth of a tree's time at 96,000 x 480, where columns stay in the last cache, and a third at 500,000 x
2,000 (0.9 of 5.4 ms and 35 of 108 ms), so that one of 2, 4, 8 trees takes at best 0.92, 0.87, 0.85 of its time alone on
the one and 0.84, 0.76, 0.72 on the other.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.child import measure
from benchmarks.harness import Job, Result, off, say, seconds
from eravane.core.config import parse_config
from eravane.learners.protocol import Learner
from eravane.learners.registry import load_booster, make_learner, predict
from eravane.planning.rates import CPU_CORE, LEVELS_CORE
from eravane_kernels import cpu
from eravane_kernels.cpu.boosting import Boosting
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules

SAMPLED = 0.1
DEPTH = 5
PER_ERA = 4_000
GROUPS = 12


@dataclass(frozen=True)
class Size:
    """Rows and columns; trees per round of each learner; rounds."""

    rows: int
    columns: int
    trees: int
    rounds: int
    scored: int = 0  # trees of the models whose scores are compared, 0 for none


FULL = {"96k_480": Size(96_000, 480, 40, 5, 100), "500k_2000": Size(500_000, 2_000, 4, 3)}
QUICK = {"6k_60": Size(6_000, 60, 4, 1, 20), "20k_40": Size(20_000, 40, 2, 1)}
SEEDS = 20


def main(quick: bool) -> list[Result]:
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (QUICK if quick else FULL).items():
            path = Path(folder) / f"{name}.npy"
            say(f"{name}: making {size.rows:,} rows x {size.columns:,} columns")
            label_N = make(path, size)
            results += measured(name, size, path, label_N)
            path.unlink()
    return results


def make(path: Path, size: Size) -> NDArray[np.float32]:
    """Write columns of levels that share factors by group; gives labels of five values with a little signal."""
    rng = np.random.default_rng(7)
    factor_GN = rng.normal(size=(GROUPS, size.rows)).astype(np.float32)
    x_CN = np.lib.format.open_memmap(path, "w+", np.int8, (size.columns, size.rows))
    signal_N = np.zeros(size.rows, dtype=np.float32)
    before_N = np.zeros(size.rows, dtype=np.float32)
    for column in range(size.columns):
        raw_N = 0.5 * factor_GN[column % GROUPS] + 0.866 * rng.standard_normal(size.rows, dtype=np.float32)
        x_CN[column] = sum((raw_N > cut).astype(np.int8) for cut in (-0.84, -0.25, 0.25, 0.84))
        level_N = x_CN[column].astype(np.float32) - 2
        if column < 60:
            signal_N += np.float32(rng.normal()) * level_N + np.float32(rng.normal()) * level_N * before_N
        before_N = level_N
    x_CN.flush()
    raw_N = 0.08 * signal_N / signal_N.std() + rng.standard_normal(size.rows, dtype=np.float32)
    level_N = np.searchsorted(np.quantile(raw_N, [0.05, 0.25, 0.75, 0.95]), raw_N)
    return np.asarray(level_N / 4, dtype=np.float32)


def measured(name: str, size: Size, path: Path, label_N: NDArray[np.float32]) -> list[Result]:
    x_CN = np.load(path, mmap_mode="r")
    table = pa.table({f"f{column}": pa.array(x_CN[column]) for column in range(size.columns)})
    learners = {kind: learner(kind) for kind in ("levels", "lightgbm", "xgboost")}
    matrices, taken = {}, {}
    for kind, one in learners.items():
        say(f"{name}: matrix of {kind}")
        begin = time.process_time()
        matrices[kind] = one.matrix(table)
        taken[kind] = time.process_time() - begin
    say(f"{name}: growing trees")
    sampled = [_job(one, matrices[kind], label_N, size.trees) for kind, one in learners.items()]
    ours, lightgbm, xgboost = times = seconds(sampled, size.rounds)
    how = _a_tree(times, learners)
    whole = [
        _job(learner(kind, sampled=1.0), matrices[kind], label_N, max(2, size.trees // 8))
        for kind in ("levels", "xgboost")
    ]
    wide, wide_xgboost = seconds(whole, size.rounds)
    cells = size.rows * int(SAMPLED * size.columns)
    results = [
        Result(f"{name}_against_xgboost", xgboost / ours, "x", 6.0, "higher", how),
        Result(f"{name}_against_lightgbm", lightgbm / ours, "x", 2.0, "higher", how),
        Result(
            f"{name}_unsampled_against_xgboost", wide_xgboost / wide, "x", 1.0, "higher",
            _a_tree((wide, wide_xgboost), ("levels", "xgboost")),
        ),
        Result(f"{name}_tree", 1000 * ours, "ms", None, "lower", f"CPU, depth {DEPTH}, one thread"),
        Result(f"{name}_per_cell", 1e9 * ours / cells, "ns", None, "lower", "tree time per row and sampled column"),
        Result(
            f"{name}_matrix_against_xgboost", taken["xgboost"] / taken["levels"], "x", None, "higher",
            ", ".join(f"{kind} {cost:.2f} s" for kind, cost in taken.items()) + ", once, CPU",
        ),
        off(f"{name}_planned_tree", LEVELS_CORE.to_grow(size.rows, cells // size.rows, DEPTH), ours, "s"),
        off(f"{name}_planned_tree_of_xgboost", CPU_CORE.to_grow(size.rows, size.columns, DEPTH), xgboost, "s"),
    ]  # fmt: skip
    del matrices
    return [
        *results,
        *_threads(name, size, x_CN, label_N),
        *_together(name, size, x_CN, label_N),
        *_memory(name, size, path),
        *_scores(name, size, table, label_N),
    ]


def learner(kind: str, sampled: float = SAMPLED) -> Learner:
    share = "feature_fraction" if kind == "lightgbm" else "colsample_bytree"
    rate = "learning_rate" if kind == "lightgbm" else "eta"
    params = {"max_depth": DEPTH, rate: 0.02, share: sampled}
    return make_learner(parse_config({"zoo": {"learner": kind, "params": params}}).zoo, "cpu")[0]


def _job(one: Learner, matrix: Any, label_N: NDArray[np.float32], trees: int) -> Job:
    """Growing trees; its time is given per tree."""
    return Job(one.name, lambda: one.fit(matrix, label_N, None, trees=trees, seed=1), trees)


def _a_tree(times: Iterable[float], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {1000 * taken:.2f} ms" for name, taken in zip(names, times, strict=True)) + " CPU a tree"


def _boosting(
    columns: LevelColumns, label_N: NDArray[np.float32], *, models: int = 1, threads: int = 1, share: float = 1.0
) -> Boosting:
    """Models about to be boosted from labels that are shifted against each other."""
    goal_BN = np.stack([np.roll(label_N, model) for model in range(models)])
    margin_BN, chosen = np.full_like(goal_BN, 0.5), int(SAMPLED * columns.width)
    rules = Rules(max_depth=DEPTH, eta=0.02)
    return Boosting(columns, rules, goal_BN, None, margin_BN, seed=1, chosen=chosen, share=share, threads=threads)


def _threads(name: str, size: Size, x_CN: NDArray[np.int8], label_N: NDArray[np.float32]) -> list[Result]:
    """Wall time of one thread against that of two, the least of many calls; it needs two free cores to mean anything.

    CPU time is given beside it, for where there are none: twice that of one over that of both, waiting included. It
    is no speedup, since what one thread does alone is counted as if the other shared it.
    """
    columns, rounds = LevelColumns.of([x_CN]), max(2, size.trees // 4)
    best, spent = {1: np.inf, 2: np.inf}, {1: list[float](), 2: list[float]()}
    models = {threads: _boosting(columns, label_N, threads=threads) for threads in best}
    for model in models.values():
        model.grow(rounds)
    for _ in range(5 * size.rounds):
        for threads, model in models.items():
            begin, spending = time.perf_counter(), time.process_time()
            model.grow(rounds)
            best[threads] = min(best[threads], (time.perf_counter() - begin) / rounds)
            spent[threads].append((time.process_time() - spending) / rounds)
    alone, both = (float(np.median(times)) for times in spent.values())
    how = f"CPU {1000 * alone:.2f} ms a tree with one thread, {1000 * both:.2f} ms with two together"
    wall = (
        f"wall {1000 * best[1]:.2f} ms a tree with one, {1000 * best[2]:.2f} ms with two, least of {5 * size.rounds} "
        f"calls of {rounds} rounds"
    )
    return [
        Result(f"{name}_two_threads", best[1] / best[2], "x", 1.7, "higher", wall),
        Result(f"{name}_two_threads_cpu", 2 * alone / both, "x", None, "higher", how),
    ]


def _together(name: str, size: Size, x_CN: NDArray[np.int8], label_N: NDArray[np.float32]) -> list[Result]:
    """CPU time a tree of models that are grown together, and of one that draws half of the rows, against one alone."""
    columns, rounds = LevelColumns.of([x_CN]), max(2, size.trees // 8)
    kinds: dict[str, dict[str, Any]] = {f"together_{models}": {"models": models} for models in (2, 4, 8)}
    kinds = {"alone": {}, **kinds, "half_of_the_rows": {"share": 0.5}}
    models = {kind: _boosting(columns, label_N, **how) for kind, how in kinds.items()}
    jobs = [
        Job(kind, partial(model.grow, rounds), rounds * kinds[kind].get("models", 1)) for kind, model in models.items()
    ]
    times = dict(zip(kinds, seconds(jobs, size.rounds), strict=True))
    alone = times.pop("alone")
    how = f"CPU {1000 * alone:.2f} ms a tree alone, {{:.2f}} ms so"
    return [
        Result(f"{name}_{kind}", alone / taken, "x", None, "higher", how.format(1000 * taken))
        for kind, taken in times.items()
    ]


def _memory(name: str, size: Size, path: Path) -> list[Result]:
    """Anonymous memory at the peak of growing trees on a mapped file, without what one row needs too."""
    results = []
    for models, goal in ((1, 24.0), (8, None)):
        bytes_of = {
            rows: measure("benchmarks.levels_jobs:grow", path, rows, size.columns, models).anonymous
            for rows in (64, size.rows)
        }
        per_row = (bytes_of[size.rows] - bytes_of[64]) / size.rows
        how = f"{bytes_of[size.rows] / 1e6:.1f} MB, of which {bytes_of[64] / 1e6:.1f} MB for 64 rows; labels included"
        kind = "memory_per_row" if models == 1 else f"memory_per_row_of_{models}_together"
        results.append(Result(f"{name}_{kind}", per_row, "B", goal, "lower", how))
    return results


def _scores(name: str, size: Size, table: pa.Table, label_N: NDArray[np.float32]) -> list[Result]:
    """CORR by era of rows held out, of models of both learners that differ in their draws alone."""
    if not size.scored:
        return []
    say(f"{name}: scores of {SEEDS} seeds")
    held = size.rows * 3 // 4
    values_CN = np.stack([column.to_numpy() for column in table.slice(held).columns])
    offsets = np.minimum(np.arange(0, size.rows - held + PER_ERA, PER_ERA), size.rows - held).astype(np.int64)
    found: dict[str, list[float]] = {"levels": [], "xgboost": []}
    for kind, scores in found.items():
        one = learner(kind)
        matrix = one.matrix(table.slice(0, held))
        for seed in range(SEEDS):
            block = one.fit(matrix, label_N[:held], None, trees=size.scored, seed=seed)
            predicted_N = predict([load_booster(block)], values_CN)
            corr_ME = cpu.numerai_corr(predicted_N[None, :].astype(np.float64), label_N[held:], offsets)
            scores.append(float(np.mean(corr_ME)))
    gap = np.mean(found["levels"]) - np.mean(found["xgboost"])
    error = np.sqrt(sum(np.var(scores, ddof=1) / SEEDS for scores in found.values()))
    how = ", ".join(f"{kind} {np.mean(scores):.4f}" for kind, scores in found.items())
    how += f", standard error of the difference {error:.4f}, {size.scored} trees, {len(offsets) - 1} eras held out"
    return [Result(f"{name}_score_gap", abs(gap) / error, "standard errors", 2.0, "lower", how)]
