"""Steps of `gpu` that grow trees: matrices, seconds per tree by width, column sampling, models side by side, a zoo."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_beside import PUBLISHED, falcata, level_grower
from benchmarks.gpu_lab import FEATURES, Check, Figure, Lab, SkipError, need
from benchmarks.gpu_work import DEPTH, Work, tree_seconds

WIDTHS = (FEATURES, 780, 355, 42)
EXAMPLE_ROWS, EXAMPLE_TREES = 5_460_000, 2_000
BITS_PER_CELL, PASSES = 3, 3.0  # of a matrix of levels; over it, to grow a tree of depth 5
PACKED = "packed cells of the columns, 3 passes, at the copy's rate"


def _params(lab: Lab, **changes: Any) -> dict[str, Any]:
    from eravane.learners.xgboost import resolve_params

    params, _ = resolve_params({"max_depth": DEPTH, **changes}, lab.device)
    return params


def _grow(lab: Lab, matrix: Any, params: Mapping[str, Any], trees: int) -> tuple[Any, float]:
    """A booster, and the seconds of a tree once the first is grown."""
    import xgboost as xgb

    booster = xgb.Booster({**params, "seed": 0}, [matrix])
    booster.update(matrix, 0)
    _, taken = lab.once(lambda: [booster.update(matrix, number) for number in range(1, trees + 1)])
    return booster, taken / trees


def _bound(lab: Lab, cells: float) -> float:
    """Seconds to read the cells of a tree, packed, at the bandwidth of a copy."""
    return cells * BITS_PER_CELL / 8 * PASSES / lab.copy_rate()


def widths(lab: Lab) -> Iterator[Figure]:
    """Building a matrix with and without a reference, seconds per tree, and memory, at four widths."""
    need("xgboost")
    from eravane.learners.xgboost import XGBoost
    from eravane.planning.rates import H100

    rows = lab.pick(2_700_000, 1_350_000, 2_000)
    measured: list[tuple[int, float, float]] = []
    for width in lab.pick(WIDTHS, WIDTHS, (12, 5)):
        work, params = Work(lab, width, rows), _params(lab)
        lab.release()
        before = lab.free()
        matrix, built = lab.once(partial(work.matrix, params))
        held = before - lab.free()
        sizes = f"{rows:,} x {width} levels"
        predicted = f"{sizes}; cost model {H100.to_bin(rows, width):.2f} s"
        yield Figure(
            f"matrix_{width}", built, "s", bound=rows * width / lab.copy_rate(), bound_of="one read", detail=predicted
        )
        trees = lab.pick(40, 20, 2)
        _, tree = _grow(lab, matrix, params, trees)
        measured.append((width, built, tree))
        expected = 1000 * H100.to_grow(rows, width, DEPTH)
        rate = f"{rows * width / tree / 1e9:,.1f} G cells x trees/s; cost model {expected:.1f} ms"
        bound = 1000 * _bound(lab, rows * width)
        yield Figure(
            f"tree_{width}",
            1000 * tree,
            "ms",
            "lower",
            bound,
            PACKED,
            detail=f"{sizes}, {trees} trees, {rate}",
        )
        formula = XGBoost(params).bytes_needed(rows, width, 1)
        detail = f"{sizes}: held after building; the formula plans {formula / 1e9:.2f} GB at the peak"
        yield Figure(f"matrix_memory_{width}", held / 1e9, "GB", detail=detail)
        if width == lab.pick(780, 780, 5):
            yield from _without_reference(lab, work, params, built)
        del matrix, work
        gc.collect()
        lab.release()
    minutes, detail = zoo_minutes(lab, rows, *np.array(measured)[:, [0, 2, 1]].T)
    yield Figure("zoo_v5.3", minutes, "min", goal=15, detail=detail)


def zoo_minutes(lab: Lab, rows: int, widths: Any, trees: Any, matrices: Any = None) -> tuple[float, str]:
    """Minutes of the zoo of v5.3 (37 cells x 4 folds x 2,000 trees) at seconds by width, and how it was derived."""
    from eravane.calendar.timeline import plan_timeline
    from eravane.core.config import load_config
    from eravane.planning.rates import H100
    from eravane.planning.shape import published
    from eravane.planning.workload import Hardware, Workload

    width_W = np.array(widths, dtype=np.float64)
    slope, once = _line(width_W, np.array(trees))
    cell, fixed = (0.0, 0.0) if matrices is None else _line(width_W, np.array(matrices))
    visit = slope / (rows * PASSES)
    changed: dict[str, Any] = {"row_level": 0.0, "node_column": 0.0, "column": 0.0}
    config = load_config(Path(__file__).parents[1] / "configs" / "v5.3-gpu.toml")
    shape = published(config)
    timeline = plan_timeline(config, shape.index, shape.newest_label, shape.horizons)
    work = Workload(config, shape, timeline, Hardware("cuda", 16, 1, 0, 0))
    work.rates = dataclasses.replace(
        H100, name=lab.name, cell=cell / rows, matrix=fixed, visit=visit, tree=once, **changed
    )
    taken = work.seconds()
    grown, bound, host = (taken[name][0] / 60 for name in ("zoo trees", "zoo matrices", "predictions"))
    detail = (
        f"EXTRAPOLATED from {len(widths)} widths at {rows:,} rows ({visit:.2g} s a cell and pass, "
        f"{1000 * once:.2f} ms a tree): trees {grown:.1f} min, matrices {bound:.1f} min; "
        f"predictions on the host, predicted, {host:.1f} min more"
    )
    return grown + bound, detail


def _line(x: Any, y: Any) -> tuple[float, float]:
    """Slope and intercept, neither negative, with the least relative error."""
    from scipy.optimize import nnls

    (slope, once), _ = nnls(np.column_stack([x / y, 1 / y]), np.ones(len(y)))
    return float(slope), float(once)


def _without_reference(lab: Lab, work: Work, params: Mapping[str, Any], built: float) -> Iterator[Figure]:
    import xgboost as xgb

    table = work.table()
    data, names = _plain(table)
    _, sketched = lab.once(lambda: xgb.QuantileDMatrix(data, max_bin=params["max_bin"], nthread=1, feature_names=names))
    detail = f"{work.rows:,} x {work.columns}: with a sketch {sketched:.2f} s, with a reference {built:.2f} s"
    yield Figure("matrix_reference_gain", sketched / built, "x", "higher", detail=detail)


def _plain(table: Any) -> tuple[Any, list[str] | None]:
    """What XGBoost takes directly."""
    from eravane.backend.protocol import DeviceTable

    return (table.values_CN.T, list(table.names)) if isinstance(table, DeviceTable) else (table, None)


def sampling(lab: Lab) -> Iterator[Figure | Check]:
    """Column sampling .1: XGBoost's own, a matrix of the sampled columns per tree, and the level grower."""
    need("xgboost")
    import xgboost as xgb

    rows, width, trees = lab.pick(1_000_000, 500_000, 2_000), lab.pick(2_000, 1_000, 20), lab.pick(60, 30, 3)
    held = slice(rows, rows + rows // 10)
    work = Work(lab, width, held.stop)
    params = _params(lab, eta=0.1)
    whole, stock = {**params, "colsample_bytree": 1.0}, {**params, "colsample_bytree": 0.1}
    matrix = work.matrix(params, rows=slice(0, rows))
    held_NC = work.values_CN[:, held].T
    for name, chosen in (("all_columns", whole), ("stock_sampling", stock)):
        booster, tree = _grow(lab, matrix, chosen, trees)
        score = np.corrcoef(lab.host(booster.inplace_predict(held_NC)), work.label_N[held])[0, 1]
        detail = f"{rows:,} x {width}, {trees} trees, held-out correlation {score:.4f}"
        read = rows * width * chosen["colsample_bytree"]
        yield Figure(f"tree_{name}", 1000 * tree, "ms", "lower", 1000 * _bound(lab, read), PACKED, detail=detail)
    rng, margin_N = np.random.default_rng(0), np.full(rows, 0.5, dtype=np.float32)
    total_N, taken = np.full(rows // 10, 0.5), 0.0
    for number in range(trees):
        columns = np.sort(rng.choice(width, max(1, width // 10), replace=False))
        few, built = lab.once(partial(work.matrix, whole, columns, slice(0, rows)))
        few.set_base_margin(margin_N)
        booster = xgb.Booster({**whole, "base_score": 0.0, "seed": number}, [few])
        _, grown = lab.once(partial(booster.update, few, 0))
        margin_N = booster.predict(few, output_margin=True)
        total_N += lab.host(booster.inplace_predict(held_NC[:, columns]))
        taken += built + grown
    score = np.corrcoef(total_N, work.label_N[held])[0, 1]
    detail = f"matrix of the sampled columns and its tree, {trees} times; held-out correlation {score:.4f}"
    bound = 1000 * _bound(lab, rows * max(1, width // 10))
    yield Figure("tree_of_subset_matrix", 1000 * taken / trees, "ms", "lower", bound, PACKED, detail=detail)
    bound = 1000 * rows * max(1, width // 10) * PASSES / lab.copy_rate()
    yield from level_grower(lab, work, rows, trees, bound, "int8 cells of the sampled columns, 3 passes")


def example(lab: Lab) -> Iterator[Figure | Check]:
    """Numerai's example model at full size: measured trees, linearity, and what 2,000 would take; beside others."""
    need("xgboost")
    rows = lab.pick(EXAMPLE_ROWS, EXAMPLE_ROWS // 4, 3_000)
    width, first = lab.pick(FEATURES, FEATURES, 15), lab.pick(100, 15, 2)
    wanted = 3.2 * rows * width
    if lab.free() < wanted:
        raise SkipError(f"needs {wanted / 1e9:.0f} GB of device memory, {lab.free() / 1e9:.0f} GB are free")
    params = _params(lab, eta=0.01, colsample_bytree=0.1)
    work, scale = Work(lab, width, rows), EXAMPLE_ROWS / rows
    levels = tree_seconds(lab, work, max(1, width // 10), first)
    yield from falcata(lab, work, first, scale)
    gc.collect()
    lab.release()
    matrix, built = lab.once(lambda: work.matrix(params))
    work.values_CN = None
    gc.collect()
    lab.release()
    booster, one = _grow(lab, matrix, params, first)
    _, taken = lab.once(lambda: [booster.update(matrix, first + 1 + number) for number in range(2 * first)])
    two = taken / (2 * first)
    detail = (
        f"EXTRAPOLATED from {3 * first} trees on {rows:,} x {width}: {1000 * one:.1f}, then {1000 * two:.1f} ms a tree"
    )
    bound = EXAMPLE_TREES * _bound(lab, scale * rows * width)
    yield Figure(
        "example_model", EXAMPLE_TREES * two * scale, "s", "lower", bound, PACKED,
        detail=f"{detail}; {PUBLISHED}",
    )  # fmt: skip
    detail = f"{1000 * two:.1f} ms a tree by XGBoost, {1000 * levels:.2f} ms by the level grower, same columns and rows"
    yield Figure("example_model_levels_gain", two / levels, "x", "higher", goal=5, detail=detail)
    yield Figure(
        "example_model_linearity", two / one, "x", detail=f"trees {first} to {3 * first} against the first {first}"
    )
    yield Figure("example_model_matrix", built * scale, "s", detail=f"{rows:,} x {width}, scaled by {scale:g}")


def together(lab: Lab) -> Iterator[Figure]:
    """Small models on one GPU: two processes that share it against one."""
    need("xgboost")
    rows, width, trees = lab.pick(2_700_000, 1_350_000, 1_000), lab.pick(42, 42, 4), lab.pick(200, 100, 2)
    alone = _side_by_side(lab, 1, rows, width, trees)
    both = _side_by_side(lab, 2, rows, width, trees)
    detail = f"{rows:,} x {width}, {trees} trees each: one {alone:.2f} s, two at once {both:.2f} s"
    yield Figure("two_processes_gain", 2 * alone / both, "x", "higher", 2.0, "twice as many", detail=detail)


def _side_by_side(lab: Lab, count: int, rows: int, width: int, trees: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(count), context.Queue()
    arguments = (ready, results, lab.sizes, lab.device, rows, width, trees)
    processes = [context.Process(target=_train_small, args=arguments, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    taken: list[float] = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return max(taken)


def _train_small(ready: Any, results: Any, sizes: Any, device: str, rows: int, width: int, trees: int) -> None:
    from benchmarks.gpu_lab import this_gpu
    from benchmarks.gpu_stand_in import stand_in

    lab = this_gpu(sizes) if device == "cuda" else stand_in()
    params = _params(lab)
    matrix = Work(lab, width, rows).matrix(params)
    _grow(lab, matrix, params, 1)
    ready.wait(timeout=100)
    begin = time.perf_counter()
    _grow(lab, matrix, params, trees)
    results.put(time.perf_counter() - begin)


def zoo(lab: Lab) -> Iterator[Figure]:
    """Zoos of every cell times four folds on made data, through the engine: wall time, and what they used."""
    need("xgboost")
    from benchmarks.zoo_jobs import Size, prepare
    from benchmarks.zoo_jobs import Work as Zoos

    size = lab.pick(Size(60, 3_000, 600, 200), Size(60, 1_500, 300, 100), Size(60, 40, 12, 3, 2))
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), size)
        for learner, figure in (("xgboost", "zoo_small"), ("levels", "zoo_small_levels")):
            yield from _zoo(lab, Zoos(Path(name), size, learner=learner), figure)


def _zoo(lab: Lab, work: Any, figure: str) -> Iterator[Figure]:
    from eravane.core.telemetry import Telemetry, gpu_meter
    from eravane.data.features import Features
    from eravane.zoo.oof import out_of_fold
    from eravane.zoo.trainer import Zoo

    store, size = work.folder / "store", work.size
    made = Zoo(store, work.config, work.timeline, xgboost_device=lab.device, cache=None)
    features = Features.open(store, work.config.prepare)
    finished: list[Any] = []
    with Telemetry(gpu_meter() if lab.device == "cuda" else None) as telemetry:
        mark = telemetry.mark()
        _, taken = lab.once(lambda: out_of_fold(made, work.specs, work.timeline.folds, features, finished.append))
        used = telemetry.since(mark)
    grown = sum(done.seconds for done in finished)
    detail = (
        f"{len(finished)} models of {size.trees} trees, {size.eras} eras x {size.rows} rows x {size.features}; growing "
        f"{grown:.1f} s summed over {made.workers} threads, CPU {used['cpu']:.1f} s"
    )
    yield Figure(figure, taken, "s", detail=detail)
    if "joules" in used:
        yield Figure(f"{figure}_energy", used["joules"], "J", detail="whole board")
    if "utilisation" in used.get("gpu", {}):
        busy = used["gpu"]["utilisation"]
        yield Figure(f"{figure}_busy", busy, "%", "higher", 100.0, "always a kernel running", detail="sampled by NVML")
