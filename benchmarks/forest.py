"""Predictions from unfolded trees against XGBoost's own: time per row and tree, and equality of the bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks.harness import Job, Result, say, seconds
from eravane.learners.forest import Forest, Predictor
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params

ERA_ROWS = 4_000
DEEP, DEEP_GOAL = 8, 3.0


def main(quick: bool) -> list[Result]:
    """Models of several depths and widths, era by era as the zoo and the loop predict."""
    rows, trees, repeats = (4_000, 10, 1) if quick else (20_000, 200, 5)
    depths = (3, 5, 7, 8, 10, 12)
    return [row for depth in depths for width in (45, 300) for row in measured(depth, width, rows, trees, repeats)]


def measured(depth: int, width: int, rows: int, trees: int, repeats: int) -> list[Result]:
    """One model: the ratio, without and with the time it takes to unfold, and equality."""
    name = f"depth_{depth}_columns_{width}"
    say(f"forest: {name}")
    rng = np.random.default_rng(0)
    values_CN = rng.integers(-1, 5, (width, rows)).astype(np.int8)
    label_N = (rng.integers(0, 5, rows) / 4).astype(np.float32)
    params, _ = resolve_params({"max_depth": depth}, "cpu")
    table = pa.table({f"f{number}": column for number, column in enumerate(values_CN)})
    block = fit(quantile_matrix(table, params), label_N, None, trees=trees, params=params, seed=1)
    booster = Predictor(block).booster
    forest = Forest.of(booster)
    assert forest is not None
    eras = [values_CN[:, first : first + ERA_ROWS] for first in range(0, rows, ERA_ROWS)]
    jobs = [
        Job("ours", lambda: [forest.predict(era_CN) for era_CN in eras]),
        Job("XGBoost", lambda: [booster.inplace_predict(era_CN.T, validate_features=False) for era_CN in eras]),
        Job("unfolding", lambda: Forest.of(booster)),
    ]
    ours, peer, unfolding = seconds(jobs, repeats)
    found_N = forest.predict(values_CN)
    assert found_N is not None
    same = np.array_equal(found_N, booster.inplace_predict(values_CN.T, validate_features=False))
    per = 1e9 / (rows * trees)
    took = f"{ours * per:.2f} ns a row and tree against {peer * per:.2f} ns"
    how = f"{took}; unfolding a tree {1e6 * unfolding / trees:.0f} us"
    goal = DEEP_GOAL if depth >= DEEP else None
    return [
        Result(f"{name}_vs_xgboost", peer / ours, "x", goal, "higher", how),
        Result(f"{name}_same_bits", float(same), "", 1, "higher", f"{rows:,} rows, {trees} trees"),
    ]
