"""A step of `gpu` that needs no XGBoost: the level grower on the device, its CPU twin, and the bytes it reads."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu_lab import FEATURES, Check, Figure, Lab
from benchmarks.gpu_trees import DEPTH, EXAMPLE_ROWS, EXAMPLE_TREES, PASSES, WIDTHS, Work, zoo_minutes
from eravane_kernels.cpu.growth import Grower as Twin
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules

READ = "int8 cells of the sampled columns, 3 passes, at the copy's rate"
SHARE = 0.1


def levels(lab: Lab) -> Iterator[Check | Figure]:
    """Trees equal to the CPU's bit for bit; seconds per tree with a tenth of the columns, at four widths."""
    yield _equal(lab)
    rows, trees = lab.pick(2_700_000, 1_350_000, 2_000), lab.pick(100, 40, 3)
    widths, taken = lab.pick(WIDTHS, WIDTHS, (20, 10)), list[float]()
    for width in widths:
        work = Work(lab, width, rows)
        tree = _tree_seconds(lab, work, width // 10 or 1, trees)
        taken.append(tree)
        told = f"{rows:,} x {width}, {width // 10 or 1} columns a tree, {trees} trees"
        bound = 1000 * rows * (width // 10 or 1) * PASSES / lab.copy_rate()
        yield Figure(f"levels_tree_{width}", 1000 * tree, "ms", "lower", bound, READ, detail=told)
        if width == lab.pick(780, 780, 10):
            full = _tree_seconds(lab, work, width, trees)
            bound = 1000 * rows * width * PASSES / lab.copy_rate()
            told = f"{rows:,} x {width}, all columns, {trees} trees"
            yield Figure("levels_tree_all_columns", 1000 * full, "ms", "lower", bound, READ, detail=told)
        del work
        gc.collect()
    minutes, said = zoo_minutes(lab, rows, widths, taken)
    yield Figure("levels_zoo_v5.3", minutes, "min", goal=15, detail=said)
    yield from _example(lab)


def _grower(lab: Lab, x_CN: Any, rules: Rules, widest: int) -> Any:
    if lab.device == "cpu":
        return Twin(LevelColumns.of([x_CN]), rules, widest)
    from eravane_kernels.cuda.growth import Grower

    return Grower(x_CN, rules, widest)


def _grown(lab: Lab, grower: Any, work: Work, count: int, trees: int) -> tuple[list[Any], Any]:
    """Trees of a model with squared error, and its output on the device."""
    rng, xp = np.random.default_rng(0), lab.xp
    label_N = xp.asarray(work.label_N)
    margin_N, grown = xp.full(work.rows, 0.5, dtype=np.float32), []
    for _ in range(trees):
        columns_K = np.sort(rng.choice(work.columns, count, replace=False)).astype(np.int64)
        grown.append(grower.grow(margin_N - label_N, None, columns_K, margin_N))
    return grown, margin_N


def _tree_seconds(lab: Lab, work: Work, count: int, trees: int) -> float:
    """Seconds of a tree, its gradients and the choice of its columns included."""
    grower = _grower(lab, work.values_CN, Rules(max_depth=DEPTH, eta=0.05), count)
    _grown(lab, grower, work, count, 2)
    _, taken = lab.once(lambda: _grown(lab, grower, work, count, trees))
    return taken / trees


def _equal(lab: Lab) -> Check:
    rows, width = lab.pick(300_000, 100_000, 500), lab.pick(200, 100, 8)
    work, rules = Work(lab, width, rows), Rules(max_depth=DEPTH, eta=0.1)
    beside = Lab("tiny", np, lab.kernels, "twin", "cpu", lambda: None, lambda: 0, np.empty)
    twin = dataclasses.replace(work) if lab.device == "cpu" else _on_host(lab, work)
    ours, margin_N = _grown(lab, _grower(lab, work.values_CN, rules, width // 2), work, width // 2, 5)
    theirs, wanted_N = _grown(beside, _grower(beside, twin.values_CN, rules, width // 2), twin, width // 2, 5)
    same = np.array_equal(lab.host(margin_N), wanted_N) and all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for one, other in zip(ours, theirs, strict=True)
        for field in dataclasses.fields(one)
    )
    return Check("level_grower_as_its_cpu_twin", same, f"5 trees on {rows:,} x {width}, every field and the output")


def _on_host(lab: Lab, work: Work) -> Any:
    """The same work for the twin, its columns on the host."""
    twin = object.__new__(Work)
    twin.lab, twin.columns, twin.rows = lab, work.columns, work.rows
    twin.values_CN, twin.label_N = lab.host(work.values_CN), work.label_N
    return twin


def _example(lab: Lab) -> Iterator[Figure]:
    rows, width = lab.pick(EXAMPLE_ROWS, EXAMPLE_ROWS // 4, 3_000), lab.pick(FEATURES, FEATURES, 20)
    count, trees = width // 10, lab.pick(200, 40, 2)
    tree = _tree_seconds(lab, Work(lab, width, rows), count, trees)
    scale = EXAMPLE_ROWS / rows
    bound = EXAMPLE_TREES * scale * rows * count * PASSES / lab.copy_rate()
    measured = f"{trees} trees on {rows:,} x {width}, {1000 * tree:.2f} ms a tree"
    told = f"EXTRAPOLATED from {measured}; published for Falcata on an RTX 5090: 31 s"
    yield Figure("example_model_levels", EXAMPLE_TREES * scale * tree, "s", "lower", bound, READ, detail=told)
