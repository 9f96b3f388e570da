"""Trees of depth 3 to 10 beside XGBoost and LightGBM: time by depth, size and least leaf, recipes, equal scores.

Bound of a level below the root, per row and sampled column, one core at 3 GHz: a byte read (0.05 to 0.1 ns), an
addition per three columns for the rows of the smaller children, at most half of all (0.06 ns), and per node of these,
shard of rows and three columns what `eravane_kernels.cpu.levelsums` says (20 ns): where a shard's share of a node is
below some 40 rows, that outweighs the rows. Each node then reads and writes 80 bytes a column three times over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.harness import Job, Result, say, seconds
from benchmarks.levels import PER_ERA, SAMPLED, SEEDS, Size, make
from eravane.core.config import parse_config
from eravane.learners.protocol import Learner
from eravane.learners.registry import load_booster, make_learner, predict
from eravane_kernels import cpu

GOALS: Mapping[str, Mapping[int, float | None]] = {
    "lightgbm": {3: 3.5, 5: 3.5, 8: 5.0, 9: 5.0, 10: 5.0},
    "xgboost": {},
}


@dataclass(frozen=True)
class Case:
    """Rows and columns, depths, least Hessians of a leaf, rounds that are timed; trees whose scores are compared."""

    rows: int
    columns: int
    depths: tuple[int, ...]
    least: tuple[int, ...]
    rounds: int
    scored: int = 0


FULL = {
    "96k_480": Case(96_000, 480, (3, 4, 5, 6, 7, 8, 9, 10), (20, 1000), 3, 30),
    "300k_780": Case(300_000, 780, (3, 4, 5, 6, 7, 8, 9, 10), (20, 1000), 3),
}
QUICK = {"6k_60": Case(6_000, 60, (3, 8), (20,), 1, 3)}
# Numerai's example recipe and the deep one: trees, depth, least leaf.
RECIPES = {"example": (2_000, 5, 20), "deep": (30_000, 10, 1000)}


def deep(quick: bool, save: Callable[[list[Result]], None] = lambda results: None) -> list[Result]:
    """Every case, each with both peers in the same rounds; what is known so far is saved after every row."""
    results: list[Result] = []

    def keep(found: list[Result]) -> None:
        results.extend(found)
        save(results)

    with tempfile.TemporaryDirectory() as folder:
        for name, case in (QUICK if quick else FULL).items():
            say(f"{name}: making {case.rows:,} rows x {case.columns:,} columns")
            path = Path(folder) / f"{name}.npy"
            label_N = make(path, Size(case.rows, case.columns, 0, 0))
            _measured(name, case, np.load(path, mmap_mode="r"), label_N, keep)
    return results


def _learner(kind: str, depth: int, least: int, sampled: float = SAMPLED) -> Learner:
    if kind == "lightgbm":
        params: dict[str, Any] = {"num_leaves": 2**depth, "learning_rate": 0.02, "feature_fraction": sampled}
        params |= {"min_data_in_leaf": least}
    else:
        params = {"eta": 0.02, "colsample_bytree": sampled, "min_child_weight": least}
    params["max_depth"] = depth
    return make_learner(parse_config({"zoo": {"learner": kind, "params": params}}).zoo, "cpu")[0]


def _measured(
    name: str,
    case: Case,
    x_CN: NDArray[np.int8],
    label_N: NDArray[np.float32],
    keep: Callable[[list[Result]], None],
) -> None:
    table = pa.table({f"f{column}": pa.array(x_CN[column]) for column in range(case.columns)})
    kinds = ("levels", "lightgbm", "xgboost")
    say(f"{name}: matrices")
    matrices = {kind: _learner(kind, 5, 20).matrix(table) for kind in kinds}
    a_tree = dict[tuple[int, int], dict[str, float]]()
    for least in case.least:
        for depth in case.depths:
            say(f"{name}: depth {depth}, least leaf {least}")
            jobs = [_job(_learner(kind, depth, least), matrices[kind], label_N) for kind in kinds]
            times = dict(zip(kinds, seconds(jobs, case.rounds), strict=True))
            a_tree[depth, least] = times
            how = ", ".join(f"{kind} {1000 * taken:.2f} ms" for kind, taken in times.items()) + " CPU a tree"
            goals = {peer: of.get(depth) if least == 20 else None for peer, of in GOALS.items()}
            ratios = {peer: times[peer] / times["levels"] for peer in goals}
            case_name = f"{name}_depth_{depth}_least_{least}"
            keep(
                [Result(f"{case_name}_{peer}", ratios[peer], "x", goal, "higher", how) for peer, goal in goals.items()]
            )
    for recipe, (trees, depth, least) in RECIPES.items():
        if (depth, least) in a_tree:
            times = a_tree[depth, least]
            how = ", ".join(f"{kind} {trees * taken:.0f} s" for kind, taken in times.items())
            how += f": {trees:,} trees at the time of the first ones"
            keep([Result(f"{name}_recipe_{recipe}", trees * times["levels"], "s", None, "lower", how)])
    del matrices
    keep(_scores(name, case, table, label_N))


def _job(one: Learner, matrix: Any, label_N: NDArray[np.float32]) -> Job:
    trees = 2 if one.name == "xgboost" else 4
    return Job(one.name, lambda: one.fit(matrix, label_N, None, trees=trees, seed=1), trees)


def _scores(name: str, case: Case, table: pa.Table, label_N: NDArray[np.float32]) -> list[Result]:
    """CORR by era of rows held out, of deep models of all three that differ in their draws alone."""
    if not case.scored:
        return []
    held = case.rows * 3 // 4
    values_CN = np.stack([column.to_numpy() for column in table.slice(held).columns])
    offsets = np.minimum(np.arange(0, case.rows - held + PER_ERA, PER_ERA), case.rows - held).astype(np.int64)
    found: dict[str, list[float]] = {"levels": [], "lightgbm": [], "xgboost": []}
    for kind, scores in found.items():
        say(f"{name}: scores of {SEEDS} seeds of {kind}")
        one = _learner(kind, 8, 20)
        matrix = one.matrix(table.slice(0, held))
        for seed in range(SEEDS):
            block = one.fit(matrix, label_N[:held], None, trees=case.scored, seed=seed)
            predicted_N = predict([load_booster(block)], values_CN)
            corr_ME = cpu.numerai_corr(predicted_N[None, :].astype(np.float64), label_N[held:], offsets)
            scores.append(float(np.mean(corr_ME)))
    results = []
    for peer in ("xgboost", "lightgbm"):
        gap = np.mean(found["levels"]) - np.mean(found[peer])
        error = np.sqrt(sum(np.var(found[kind], ddof=1) / SEEDS for kind in ("levels", peer)))
        how = ", ".join(f"{kind} {np.mean(found[kind]):.4f}" for kind in ("levels", peer))
        how += f", standard error of the difference {error:.4f}, {case.scored} trees of depth 8, {SEEDS} seeds"
        goal = 2.0 if peer == "xgboost" else None  # LightGBM grows leaf by leaf: other trees
        results.append(Result(f"{name}_deep_score_gap_{peer}", abs(gap) / error, "standard errors", goal, "lower", how))
    return results
