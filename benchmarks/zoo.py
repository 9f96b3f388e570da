"""The zoo: every cell times four folds against the bound of growing trees and against the straightforward method.

Wall times are of this machine as it is; where strangers use its cores, the ratios of CPU time are the ones to read.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numerai_tools import scoring
from numpy.typing import NDArray

from benchmarks.harness import Result, off, say
from benchmarks.zoo_jobs import (
    FOLDS,
    TARGETS,
    Measured,
    Size,
    Work,
    bound,
    busy_neighbour,
    measure,
    on_dask,
    ours,
    prepare,
    straightforward,
    wide,
)
from eravane.calendar.folds import walk_forward
from eravane.calendar.horizon import Horizon
from eravane.core.memory import cores
from eravane.data.features import Features
from eravane.learners.registry import load_booster, predict
from eravane.planning.shape import read_shape
from eravane.planning.workload import Hardware, Workload
from eravane.scoring.ensemble import one_era
from eravane.scoring.metrics import hac_mean, summarise
from eravane_kernels import cpu

FULL = Size(eras=60, rows=400, features=600, trees=200)
QUICK = Size(eras=60, rows=40, features=12, trees=3, groups=2)
HAC_LAG = Horizon.required(TARGETS[0]).hac_lag
PUBLISHED = ["1-148>157-312", "1-304>313-468", "1-460>469-624", "1-616>625-780"]


def main(quick: bool) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return measured(Path(folder), QUICK if quick else FULL)


def measured(folder: Path, size: Size) -> list[Result]:
    say(f"making {size.eras} eras x {size.rows} rows x {size.features} features")
    prepare(folder, size)
    one, results = Work(folder, size, workers=min(2, cores())), list[Result]()
    peers: dict[str, Measured] = {}
    for learner in ("xgboost", "levels"):
        say(f"{learner}: growing trees alone")
        floor = measure(bound, replace(one, learner=learner))
        for name, work, least in (("zoo", one, 1.3), ("zoo_5_targets_2_seeds", replace(one, targets=5, seeds=2), 1.5)):
            say(f"{learner}: {name}")
            peer = peers.get(name) or measure(straightforward, work)
            peers[name], work = peer, replace(work, learner=learner)
            fast = measure(ours, work)
            results += _zoo(f"{learner}_{name}", work, fast, peer, floor, least)
    one = replace(one, learner="levels")
    threads = measure(ours, one)
    say("Dask, and a busy neighbour")
    results += _elsewhere(one, threads)
    say("one wide model")
    results += _wide(one)
    return [*results, *_equalities(one, threads)]


def levels(quick: bool) -> list[Result]:
    """The level grower's zoo in threads and on Dask against growing alone: medians of five rounds, all in turn."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), QUICK if quick else FULL, workers=min(2, cores()), learner="levels")
        prepare(work.folder, work.size)
        rounds = []
        for turn in range(1 if quick else 5):
            say(f"round {turn + 1}")
            rounds.append([measure(job, work) for job in (bound, ours, on_dask)])
    floors, zoos, dasks = zip(*rounds, strict=True)
    grow = {kind: [floor.facts[f"grow_{kind}"] for floor in floors] for kind in ("wall", "cpu")}
    walls, cpus = [zoo.wall for zoo in zoos], [zoo.cpu for zoo in zoos]
    pairs = [
        ("levels_zoo_wall_over_bound", "x", 1.2, walls, [seconds / work.workers for seconds in grow["wall"]]),
        ("levels_zoo_cpu_over_bound", "x", 1.2, cpus, grow["cpu"]),
        ("dask_wall_over_threads", "x", 1.15, [dask.wall for dask in dasks], walls),
        ("dask_cpu_over_threads", "x", 1.15, [dask.cpu for dask in dasks], cpus),
    ]
    return [
        Result(
            name, float(np.median(np.divide(ours_, other))), unit, goal, "lower",
            f"{np.median(ours_):.2f} s against {np.median(other):.2f} s, rounds {np.round(np.divide(ours_, other), 2)}",
        )
        for name, unit, goal, ours_, other in pairs
    ]  # fmt: skip


def _zoo(name: str, work: Work, fast: Measured, peer: Measured, floor: Measured, least: float) -> list[Result]:
    models = work.targets * work.seeds
    grow_wall, grow_cpu = models * floor.facts["grow_wall"], models * floor.facts["grow_cpu"]
    parts = fast.facts["parts"]
    share = parts["matrix"] / sum(parts.values())
    took = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items())
    how = f"{fast.facts['models']} models, {fast.wall:.1f} s wall, {fast.cpu:.1f} s CPU"
    against = f"peer {peer.wall:.1f} s wall, {peer.cpu:.1f} s CPU"
    memory = f"{fast.peak / 1e6:.0f} MB against {peer.peak / 1e6:.0f} MB"
    corr, other, error = _corr(work, fast), _corr(work, peer), _corr_error(work, fast)
    return [
        Result(f"{name}_wall_over_bound", fast.wall / (grow_wall / work.workers), "x", 1.2, "lower", how),
        Result(f"{name}_cpu_over_bound", fast.cpu / grow_cpu, "x", 1.2, "lower", f"growing alone {grow_cpu:.1f} s CPU"),
        Result(f"{name}_vs_straightforward_wall", peer.wall / fast.wall, "x", least, "higher", against),
        Result(f"{name}_vs_straightforward_cpu", peer.cpu / fast.cpu, "x", least, "higher", against),
        Result(f"{name}_peak_memory_ratio", fast.peak / peer.peak, "x", 1 / 3, "lower", memory),
        Result(f"{name}_matrix_share", share, "", 0.15, "lower", f"of the tasks' time: {took}"),
        Result(f"{name}_corr_difference", abs(corr - other), "CORR", error, "lower", f"{corr:.5f} against {other:.5f}"),
        off(f"{name}_planned_wall", _planned(work), fast.wall, "s"),
    ]


def _planned(work: Work) -> float:
    """Wall seconds that the cost model gives a zoo."""
    shape = read_shape(work.folder / "store", work.config)
    hardware = Hardware("cpu", work.workers, 0, math.inf, math.inf)
    planned = Workload(work.config, shape, work.timeline, hardware).seconds()
    return sum(planned[stage][0] for stage in ("zoo matrices", "zoo trees", "predictions"))


def _labelled(work: Work) -> tuple[Features, list[int]]:
    features = Features.open(work.folder / "store", work.config.prepare)
    first, last = work.timeline.folds[0].predict_first, work.timeline.folds[-1].predict_last
    eras = features.eras(first, last)
    return features, [era for era in eras if not np.isnan(features.labels(TARGETS[0], era, era)).all()]


def _scores(work: Work, values_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """CORR per labelled out-of-fold era of one model."""
    features, eras = _labelled(work)
    first, last = work.timeline.folds[0].predict_first, work.timeline.folds[-1].predict_last
    index = features.store.index.select(first, last)
    scores = []
    for era in eras:
        label = features.labels(TARGETS[0], era, era)
        scores.append(cpu.numerai_corr(values_N[index.rows_of(era)][None], label, one_era(label.size))[0, 0])
    return np.array(scores)


def _corr(work: Work, found: Measured) -> float:
    return float(np.mean([np.nanmean(_scores(work, values)) for values in found.facts["shown"].values()]))


def _corr_error(work: Work, found: Measured) -> float:
    return max(hac_mean(_scores(work, values), HAC_LAG).se for values in found.facts["shown"].values())


def _elsewhere(work: Work, threads: Measured) -> list[Result]:
    dask = measure(on_dask, work)
    neighbour = busy_neighbour()
    beside = measure(ours, work)
    neighbour.terminate()
    neighbour.join()
    equal = all(np.array_equal(values, dask.facts["shown"][name]) for name, values in threads.facts["shown"].items())
    overhead = dask.wall / threads.wall - 1
    detail = f"{dask.wall:.1f} s against {threads.wall:.1f} s in threads, the same bytes: {equal}"
    fair = work.workers / max(work.workers - 0.5, 0.5)
    more = f"{dask.cpu:.1f} s of client, scheduler and workers against {threads.cpu:.1f} s"
    return [
        Result("dask_overhead", overhead, "", 0.15, "lower", detail),
        Result("dask_overhead_cpu", dask.cpu / threads.cpu - 1, "", 0.15, "lower", more),
        Result("dask_cluster_start", dask.facts["start"], "s"),
        Result(
            "beside_a_busy_process", beside.wall / threads.wall, "x", None, "lower",
            f"wall against alone; a fair share of {work.workers} cores for {work.workers} threads gives {fair:.2f}",
        ),
    ]  # fmt: skip


def _wide(work: Work) -> list[Result]:
    found, fold = measure(wide, work).facts, work.timeline.folds[-1]
    features, _ = _labelled(work)
    eras = features.eras(fold.predict_first, fold.predict_last)
    results, columns = [], features.store.columns
    for name, facts in found.items():
        boosters = [load_booster(block) for block in facts["blocks"]]
        scores = []
        for era in eras:
            label = features.labels(TARGETS[0], era, era)
            if not np.isnan(label).all():
                values = features.era(era, columns).values
                base = np.stack([predict([booster], values) for booster in boosters])
                scores.append(cpu.numerai_corr(base, label, one_era(label.size))[:, 0])
        per_seed = np.mean(scores, axis=0)
        error = hac_mean(np.mean(scores, axis=1), HAC_LAG).se
        how = f"colsample .1, {work.size.trees} trees; matrix {facts['matrix']:.2f} s CPU"
        spread = (
            f"seeds {', '.join(f'{value:.4f}' for value in per_seed)}; HAC error {error:.4f} over {len(scores)} eras"
        )
        results.append(Result(f"wide_{name}_cpu", facts["grow"], "s", None, "lower", how))
        results.append(Result(f"wide_{name}_corr", float(per_seed.mean()), "CORR", None, "higher", spread))
    return results


def _equalities(work: Work, threads: Measured) -> list[Result]:
    name, values_N = next(iter(threads.facts["shown"].items()))
    worst = _largest_difference(work, values_N)
    folds = [fold.name for fold in walk_forward(1, 1231, chunk=156, tree_lag=9)]
    same = folds[:FOLDS] == PUBLISHED and len(folds) == 7
    how = f"CORR, Sharpe, drawdown, MMC, BMC, FNC, exposure of {name}"
    return [
        Result("scores_vs_numerai_tools", worst, "", 1e-9, "lower", how),
        Result("folds_equal_the_published_table", float(same), "", 1, "higher", ", ".join(folds[:FOLDS])),
    ]


def _largest_difference(work: Work, values_N: NDArray[np.float32]) -> float:
    features, eras = _labelled(work)
    first, last = work.timeline.folds[0].predict_first, work.timeline.folds[-1].predict_last
    index, rng, worst = features.store.index.select(first, last), np.random.default_rng(0), 0.0
    corrs = []
    for era in eras:
        base = values_N[index.rows_of(era)].astype(np.float64)
        label = features.labels(TARGETS[0], era, era)
        neutral = features.era(era, features.store.columns[:20]).values
        reference, one = rng.random(base.size), one_era(base.size)
        known = ~np.isnan(label)
        frame = pd.DataFrame({"p": base[known]})
        target, meta = pd.Series(label[known], name="y"), pd.Series(reference[known], name="m")
        levels = pd.DataFrame(neutral[:, known].T)
        corrs.append((cpu.numerai_corr(base[None], label, one)[0, 0], scoring.numerai_corr(frame, target)["p"]))
        pairs: list[tuple[Any, Any]] = [
            corrs[-1],
            (
                cpu.contribution(base[None], reference, label, one)[0, 0],
                scoring.correlation_contribution(frame, meta, target)["p"],
            ),
            (
                cpu.feature_neutral_corr(base[None], neutral, label, one)[0, 0],
                scoring.feature_neutral_corr(frame, levels, target)["p"],
            ),
            (cpu.exposure(base[None], neutral, one)[0, :, 0], pd.DataFrame(neutral.T).corrwith(pd.Series(base))),
        ]
        worst = max([worst, *(float(np.nanmax(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)])
    mine, theirs = summarise([pair[0] for pair in corrs]), pd.Series([pair[1] for pair in corrs])
    drawdown = float((theirs.cumsum().cummax() - theirs.cumsum()).max())
    sharpe = float(theirs.mean() / theirs.std(ddof=0))
    return max(worst, abs(mine.sharpe - sharpe), abs(mine.max_drawdown - drawdown))
