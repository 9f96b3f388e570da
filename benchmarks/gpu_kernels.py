"""Steps of `gpu` that need no XGBoost: bandwidths, kernels at the size of v5.3, projections, the meta-learner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_lab import FEATURES, ROWS, SHEET, SHEET_DOUBLE, Figure, Lab, eras_of, importable, on_sheet
from eravane_kernels import cpu
from eravane_kernels.arrays import Integers

COPY = "the device's own copy"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
REACH = 0.85  # share of the copy's bandwidth that kernels aim at
MODELS = 36


def bandwidth(lab: Lab) -> Iterator[Figure]:
    """Copies within the device and to it: the ceilings of everything else."""
    sheet, copy = on_sheet(SHEET, lab.name), lab.copy_rate()
    bound = None if sheet is None else sheet / 1e9
    yield Figure("device_copy", copy / 1e9, "GB/s", "higher", bound, "data sheet", None, "bytes read and written")
    size = lab.pick(1 << 31, 1 << 30, 1 << 20)
    target = lab.xp.empty(size, np.uint8)
    for kind, source in (("pinned", lab.pinned(size, np.uint8)), ("pageable", np.empty(size, np.uint8))):
        source[...] = 1
        taken = lab.seconds(partial(_send, lab, target, source), 3)
        yield Figure(
            f"upload_{kind}", size / taken / 1e9, "GB/s", "higher", 64.0, "PCIe 5 x16", None, f"{size:,} bytes"
        )


def _send(lab: Lab, target: Any, source: Any) -> None:
    if lab.xp is np:
        target[...] = source
    else:
        target.set(source)


def statistics(lab: Lab) -> Iterator[Figure]:
    """Counting levels and all statistics of int8 features, against the copy, the CPU twin, cuDF, and with upload."""
    columns = lab.pick(FEATURES, FEATURES, 8)
    eras, offsets = eras_of(lab, columns, 1.3)
    x_CN = lab.levels(columns, int(offsets[-1]), least=-1)
    size, case = x_CN.size, f"{eras} eras, {int(offsets[-1]):,} x {columns} int8"
    counted = lab.seconds(lambda: lab.kernels.level_counts(x_CN, offsets))
    yield _rate(lab, "level_counts", size, counted, case)
    whole = lab.seconds(lambda: lab.kernels.era_stats(x_CN, offsets, QUANTILES))
    yield _rate(lab, "era_stats", size, whole, case)
    few_CN = lab.host(x_CN[: max(1, columns // 64)])
    twin = _twin(lambda: cpu.era_stats(few_CN, offsets, QUANTILES)) * columns / len(few_CN)
    yield Figure("era_stats_vs_cpu_twin", twin / whole, "x", "higher", detail=f"one core, {len(few_CN)} columns scaled")
    yield from _with_cudf(lab, x_CN[: min(16, columns)], offsets, whole * min(16, columns) / columns)
    yield from _with_upload(lab, columns)


def _rate(lab: Lab, name: str, size: float, taken: float, case: str) -> Figure:
    ceiling = lab.copy_rate() / 1e9
    detail = f"{case}, {1000 * taken:.2f} ms"
    return Figure(name, size / taken / 1e9, "GB/s", "higher", ceiling, COPY, REACH * ceiling, detail)


def _twin(call: Callable[[], Any]) -> float:
    call()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _with_cudf(lab: Lab, x_CN: Any, offsets: Integers, ours: float) -> Iterator[Figure]:
    if not importable("cudf"):
        return
    import cudf

    era = lab.xp.asarray(np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets)))
    frame = cudf.DataFrame({f"f{number}": cudf.Series(column) for number, column in enumerate(x_CN)})
    frame["era"] = era
    groups = frame.groupby("era")
    taken = lab.seconds(lambda: (groups.mean(), groups.std(), groups.quantile(list(QUANTILES))), 3)
    yield Figure("era_stats_vs_cudf", taken / ours, "x", "higher", detail=f"{len(x_CN)} columns, mean, std, quantiles")


def _with_upload(lab: Lab, columns: int) -> Iterator[Figure]:
    eras = lab.pick(64, 32, 2)
    offsets = np.arange(eras + 1, dtype=np.int64) * lab.pick(ROWS, ROWS, 50)
    host_CN = np.random.default_rng(0).integers(0, 5, (columns, int(offsets[-1])), dtype=np.int8)
    from eravane.backend import choose

    backend = choose("cuda" if lab.device == "cuda" else "cpu", lambda _: None, "none")
    sent = lab.seconds(lambda: backend.load([(0, host_CN)], host_CN.shape, "int8"), 3)
    x_CN = backend.to_device(host_CN)
    both = lab.seconds(lambda: lab.kernels.era_stats(backend.load([(0, host_CN)], host_CN.shape, "int8"), offsets), 3)
    alone = lab.seconds(lambda: lab.kernels.era_stats(x_CN, offsets), 3)
    case = f"{eras} eras x {columns}; upload alone {1000 * sent:.1f} ms, statistics alone {1000 * alone:.1f} ms"
    rate = host_CN.nbytes / both / 1e9
    yield Figure("era_stats_with_upload", rate, "GB/s", "higher", 64.0, "PCIe 5 x16", None, case)


def tables(lab: Lab) -> Iterator[Figure]:
    """Imputing and clipping levels by tables per era and column."""
    columns = lab.pick(FEATURES, FEATURES, 8)
    eras, offsets = eras_of(lab, columns, 2.4)
    x_CN = lab.levels(columns, int(offsets[-1]), least=-1)
    kernels, case = lab.kernels, f"{eras} eras, {int(offsets[-1]):,} x {columns} int8"
    table = kernels.fill_table(kernels.fill_values(x_CN, offsets, "median"))
    applied = lab.seconds(lambda: kernels.apply_table(x_CN, offsets, table), 3)
    yield _rate(lab, "apply_table", 2 * x_CN.size, applied, case)

    def impute() -> Any:
        return kernels.apply_table(x_CN, offsets, kernels.fill_table(kernels.fill_values(x_CN, offsets, "median")))

    yield _rate(lab, "impute_levels", 3 * x_CN.size, lab.seconds(impute, 3), case + ", read twice, written once")
    few_CN = lab.host(x_CN[: max(1, columns // 64)])
    few = lab.host(table)[:, : len(few_CN)]
    twin = _twin(lambda: cpu.apply_table(few_CN, offsets, np.ascontiguousarray(few))) * columns / len(few_CN)
    yield Figure(
        "apply_table_vs_cpu_twin", twin / applied, "x", "higher", detail=f"one core, {len(few_CN)} columns scaled"
    )


def scores(lab: Lab) -> Iterator[Figure]:
    """CORR, ranks and gaussianised ranks of 36 models over all eras."""
    models = lab.pick(MODELS, MODELS, 3)
    eras, offsets = eras_of(lab, 24 * models, 1.0)
    rows, rng = int(offsets[-1]), lab.random(0)
    p_MN = rng.standard_normal((models, rows)).astype(np.float32)
    y_N = rng.randint(0, 5, rows).astype(np.float64) / 4
    case = f"{models} models, {eras} eras, {rows:,} rows, float32"
    taken = lab.seconds(lambda: lab.kernels.numerai_corr(p_MN, y_N, offsets), 3)
    least = p_MN.nbytes / lab.copy_rate()
    yield Figure(
        "numerai_corr", 1000 * taken, "ms", "lower", 1000 * least, "one read at the copy's bandwidth", detail=case
    )
    for name in ("rank", "gaussianize"):
        spent = lab.seconds(partial(getattr(lab.kernels, name), p_MN, offsets), 3)
        bound = 1000 * 3 * p_MN.nbytes / lab.copy_rate()
        yield Figure(name, 1000 * spent, "ms", "lower", bound, "one read, one write in float64", detail=case)
    some = max(1, eras // 32)
    few_MN, few_N = lab.host(p_MN[:, : offsets[some]]), lab.host(y_N[: offsets[some]])
    twin = _twin(lambda: cpu.numerai_corr(few_MN, few_N, offsets[: some + 1])) * rows / int(offsets[some])
    yield Figure(
        "numerai_corr_vs_cpu_twin", twin / taken, "x", "higher", goal=30, detail=f"one core, {some} eras scaled"
    )


def projections(lab: Lab) -> Iterator[Figure]:
    """Neutralisation by Gram matrix and Cholesky factor, and nearest-neighbour imputation, seconds for all eras."""
    rows, models = lab.pick(ROWS, ROWS, 60), lab.pick(MODELS, MODELS, 3)
    rng = lab.random(1)
    for features, eras in (
        (lab.pick(780, 780, 5), lab.pick(64, 16, 2)),
        (lab.pick(FEATURES, FEATURES, 9), lab.pick(16, 4, 2)),
    ):
        offsets = np.arange(eras + 1, dtype=np.int64) * rows
        f_FN, p_MN = lab.levels(features, eras * rows), rng.standard_normal((models, eras * rows))
        taken = lab.seconds(partial(lab.kernels.neutralize, p_MN, f_FN, offsets), 3) / eras
        one = offsets[:2]
        few_MN, few_FN = lab.host(p_MN[:, :rows]), lab.host(f_FN[:, :rows])
        twin = _twin(partial(cpu.neutralize, few_MN, few_FN, one))
        case = f"{models} predictions, {features} features, {eras} eras measured; CPU twin {1231 * twin:,.0f} s"
        # Gram matrix, its factor, and projecting twice, for the predictions' refinement too.
        work = 2 * rows * features**2 + features**3 / 3 + models * (8 * rows * features + 4 * features**2)
        peak = on_sheet(SHEET_DOUBLE, lab.name)
        bound = None if peak is None else 1231 * work / peak
        unit, of = "s for 1,231 eras", "operations in float64, data sheet"
        yield Figure(f"neutralize_{features}", 1231 * taken, unit, "lower", bound, of, detail=case)
        yield Figure(f"neutralize_{features}_vs_cpu_twin", twin / taken, "x", "higher", detail="one core, one era")
    columns, eras = lab.pick(512, 256, 6), lab.pick(8, 4, 2)
    x_CN = rng.standard_normal((columns, eras * rows)).astype(np.float32)
    x_CN[rng.random_sample(x_CN.shape) < 0.02] = np.nan
    offsets = np.arange(eras + 1, dtype=np.int64) * rows
    taken = lab.seconds(lambda: lab.kernels.knn_impute(x_CN, offsets), 2) / eras
    yield Figure("knn_impute", taken, "s/era", detail=f"{rows} rows x {columns} float32, 2 % missing")


def meta(lab: Lab) -> Iterator[Figure]:
    """Training the meta-learner: a full refit, and a warm start with its decision, on the device and on the CPU."""
    models, features, eras = lab.pick(24, 24, 6), lab.pick(FEATURES, 780, 18), lab.pick(400, 200, 60)
    import torch

    found = {}
    for device in dict.fromkeys((lab.device, "cpu")):
        torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)  # the libraries load before the clock
        found[device] = _learnt(lab, device, models, features, eras)
    case = f"{models} models, {features} features, {eras} resolved eras, {lab.pick(10, 10, 2)} networks"
    for number, name in enumerate(("meta_refit", "meta_era")):
        ours, host = found[lab.device][number], found["cpu"][number]
        yield Figure(name, ours, "s", detail=f"{case}; on the CPU {host:.3g} s")


def _learnt(lab: Lab, device: str, models: int, features: int, eras: int) -> tuple[float, float]:
    from eravane.core.config import GateConfig
    from eravane.gate.gate import MetaLearner
    from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel

    rng, lag = np.random.default_rng(0), 6
    pool = [GateModel(f"m{m}", "small" if m % 2 else "all", f"g{m}") for m in range(models)]
    config = GateConfig(seeds=lab.pick(10, 10, 2), rehearsal=0)
    learner = MetaLearner(config, pool, lag=lag, seed=0, device=device)
    cells = tuple(np.sort(rng.choice(features, features // 6, replace=False)) for _ in pool)
    agreement_MM = 0.3 + 0.7 * np.eye(models)
    for era in range(1, eras + 2):
        marginal_KF = rng.standard_normal((7, features)).astype(np.float32)
        model_MS = rng.standard_normal((models, 2))
        facts = EraFacts(model_MS, np.zeros(2), ("a", "b"), ("c", "d"), marginal_KF, cells)
        c_M = 0.02 * rng.standard_normal(models)
        if era == eras + 1:
            _, full = lab.once(lambda: learner.learn(eras + lag))
        learner.observe(EraOutcome(era, c_M, c_M, agreement_MM, facts, np.ones(models)))

    def week() -> None:
        learner.learn(eras + 1 + lag)
        open_M = learner.decide(eras + 1 + lag, facts)
        learner.weigh(eras + 1 + lag, facts, open_M, agreement_MM, np.ones(models))

    _, warm = lab.once(week)
    return full, warm
