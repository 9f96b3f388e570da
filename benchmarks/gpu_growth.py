"""A step of `gpu` that needs no XGBoost: the level grower on the device, its CPU twin, and the bytes it reads."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_lab import FEATURES, ROWS, Check, Figure, Lab, importable
from benchmarks.gpu_trees import EXAMPLE_ROWS, EXAMPLE_TREES, PASSES, WIDTHS, zoo_minutes
from benchmarks.gpu_work import Work, boosting_of, grown, tree_seconds
from eravane_kernels import cpu
from eravane_kernels.growth import Tree
from eravane_kernels.spec.forest import LEAF

READ = "int8 cells of the sampled columns, 3 passes, at the copy's rate"
TOGETHER = 4
"""Models that are grown at once where that is measured; they learn the same, each with noise of its own."""


def levels(lab: Lab) -> Iterator[Check | Figure]:
    """Models equal to the CPU's bit for bit; seconds per tree with a tenth of the columns; several models at once."""
    yield _equal(lab)
    yield from _predicted(lab)
    yield from _renewed(lab)
    rows, trees = lab.pick(2_700_000, 1_350_000, 2_000), lab.pick(200, 60, 3)
    widths, taken = lab.pick(WIDTHS, WIDTHS, (20, 10)), list[float]()
    for width in widths:
        work, count = Work(lab, width, rows), width // 10 or 1
        tree = tree_seconds(lab, work, count, trees)
        taken.append(tree)
        detail = f"{rows:,} x {width}, {count} columns a tree, {trees} trees"
        yield Figure(f"levels_tree_{width}", 1000 * tree, "ms", "lower", _bound(lab, rows, count), READ, detail=detail)
        if width == lab.pick(780, 780, 10):
            full = tree_seconds(lab, work, width, trees)
            detail = f"{rows:,} x {width}, all columns, {trees} trees"
            bound = _bound(lab, rows, width)
            yield Figure("levels_tree_all_columns", 1000 * full, "ms", "lower", bound, READ, detail=detail)
            together = tree_seconds(lab, work, count, trees, TOGETHER)
            detail = f"{TOGETHER} models at once, {1000 * together:.2f} ms a tree and model; alone {1000 * tree:.2f} ms"
            yield Figure("levels_together_gain", tree / together, "x", "higher", detail=detail)
        del work
        gc.collect()
    if importable("xgboost"):  # the plan of a zoo asks every learner
        minutes, detail = zoo_minutes(lab, rows, widths, taken)
        yield Figure("levels_zoo_v5.3", minutes, "min", goal=15, detail=detail)
    yield from _example(lab)


def _bound(lab: Lab, rows: int, count: int) -> float:
    """Milliseconds to read the sampled cells."""
    return 1000 * rows * count * PASSES / lab.copy_rate()


def _equal(lab: Lab) -> Check:
    """Weighed rows, of which some are drawn; models that grow together."""
    rows, width = lab.pick(300_000, 100_000, 500), lab.pick(200, 100, 8)
    work = Work(lab, width, rows)
    beside = Lab("tiny", np, lab.kernels, "twin", "cpu", lambda: None, lambda: 0, np.empty)
    weight_N = np.random.default_rng(1).random(rows, dtype=np.float32)
    how: dict[str, Any] = {"weight_N": weight_N, "share": 0.8}
    ours = grown(boosting_of(lab, work, width // 2, 3, **how), 5)
    theirs = grown(boosting_of(beside, _on_host(lab, work), width // 2, 3, **how), 5)
    same = all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for grown, wanted in zip(ours, theirs, strict=True)
        for one, other in zip(grown, wanted, strict=True)
        for field in dataclasses.fields(Tree)
    )
    return Check("level_grower_as_its_cpu_twin", same, f"5 trees of 3 models on {rows:,} x {width}, every field")


def _predicted(lab: Lab) -> Iterator[Check | Figure]:
    """Complete trees of random splits, evaluated for an era of levels: the bits of the CPU twin, and the time."""
    rows, width, trees = lab.pick(ROWS, ROWS, 100), lab.pick(FEATURES, FEATURES, 12), lab.pick(2_000, 2_000, 33)
    values_CN, same = lab.levels(width, rows, seed=7, least=-1), True
    for depth in (5, 10):
        node_K4, root_T = _random_trees(trees, depth, width)
        there = lab.xp.asarray(node_K4), lab.xp.asarray(root_T)
        found_N = lab.kernels.add_trees(values_CN, *there, lab.xp.zeros(rows, dtype=np.float32))
        few = min(rows, 200)
        twin_N = cpu.add_trees(lab.host(values_CN[:, :few]), node_K4, root_T, np.zeros(few, dtype=np.float32))
        same &= np.array_equal(lab.host(found_N)[:few], twin_N)
        taken = lab.seconds(partial(lab.kernels.add_trees, values_CN, *there, found_N))
        detail = f"{rows:,} rows, {trees:,} complete trees, {taken / rows / trees * 1e12:,.0f} ps a row and tree"
        yield Figure(f"era_by_trees_of_depth_{depth}", 1000 * taken, "ms", detail=detail)
    yield Check("trees_evaluated_as_by_their_cpu_twin", same, f"{trees:,} trees of depths 5 and 10, every bit")


def _renewed(lab: Lab) -> Iterator[Check | Figure]:
    """Leaves of two models re-estimated on a window of five eras: the bits of the CPU twin, and the time."""
    rows, trees = lab.pick(5 * ROWS, 5 * ROWS, 300), lab.pick(200, 100, 6)
    values_CN = lab.levels(lab.pick(355, 355, 12), rows, seed=8, least=-1)
    node_K4, root_T = _random_trees(trees, 5, len(values_CN))
    tree_T2 = np.stack([root_T, np.append(root_T[1:], len(node_K4))], axis=1).astype(np.int32)
    random, old_K = np.random.default_rng(9), node_K4.view(np.float32)[:, 1].astype(np.float64)
    given = random.random((2, rows), dtype=np.float32), np.ones(rows, dtype=np.float32), np.full((2, rows), 0.5)
    models = node_K4, old_K, tree_T2, np.array([0, trees // 2, trees])
    renew = partial(lab.kernels.renew_leaves, values_CN, *models, *given, 0.05, 1.0, 0.8)
    wanted: tuple[Any, ...] = cpu.renew_leaves(lab.host(values_CN), *models, *given, 0.05, 1.0, 0.8)
    same = all(np.array_equal(lab.host(one), other) for one, other in zip(renew(), wanted, strict=True))
    yield Check("leaves_renewed_as_by_their_cpu_twin", same, f"{trees:,} trees of two models, every bit")
    taken = lab.seconds(renew)
    detail = f"{rows:,} rows, two models of {trees // 2:,} trees, {taken / trees * 2e6:,.0f} us a tree"
    yield Figure("leaves_of_two_models", 1000 * taken, "ms", detail=detail)


def _random_trees(trees: int, depth: int, width: int) -> tuple[Any, Any]:
    """Nodes int32 [K, 4] and roots int32 [T] of complete trees on levels, as `spec.add_trees` takes them."""
    random, inner = np.random.default_rng(depth), 2**depth - 1
    place_N = np.arange(2 * inner + 1)
    code_TN = np.where(place_N < inner, random.integers(0, 2 * width, (trees, place_N.size)), LEAF)
    number_TN = np.where(place_N < inner, random.integers(0, 5, code_TN.shape), random.normal(size=code_TN.shape))
    root_T = np.arange(trees) * place_N.size
    left_TN = np.minimum(2 * place_N + 1, 2 * inner - 1) + root_T[:, None]
    node_TN4 = np.stack([code_TN, number_TN.astype(np.float32).view(np.int32), left_TN, left_TN + 1], axis=2)
    return node_TN4.reshape(-1, 4).astype(np.int32), root_T.astype(np.int32)


def _on_host(lab: Lab, work: Work) -> Any:
    """The same work for the twin, its columns on the host."""
    twin = object.__new__(Work)
    twin.lab, twin.columns, twin.rows = lab, work.columns, work.rows
    twin.values_CN, twin.label_N = lab.host(work.values_CN), work.label_N
    return twin


def _example(lab: Lab) -> Iterator[Figure]:
    rows, width = lab.pick(EXAMPLE_ROWS, EXAMPLE_ROWS // 4, 3_000), lab.pick(FEATURES, FEATURES, 20)
    count, first = width // 10, lab.pick(130, 30, 2)
    boosting = boosting_of(lab, Work(lab, width, rows), count)
    grown(boosting, 2)
    _, one = lab.once(lambda: grown(boosting, first))
    _, two = lab.once(lambda: grown(boosting, 2 * first))
    tree, scale = two / (2 * first), EXAMPLE_ROWS / rows
    bound = EXAMPLE_TREES * scale * _bound(lab, rows, count) / 1000
    measured = f"{3 * first} trees on {rows:,} x {width}: {1000 * one / first:.2f}, then {1000 * tree:.2f} ms a tree"
    detail = f"EXTRAPOLATED from {measured}; published for Falcata on an RTX 5090: 31 s"
    yield Figure("example_model_levels", EXAMPLE_TREES * scale * tree, "s", "lower", bound, READ, detail=detail)
    detail = f"trees {first} to {3 * first} against the first {first}"
    yield Figure("example_model_levels_linearity", two / 2 / one, "x", detail=detail)
