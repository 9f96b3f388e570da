"""The meta-learner on made worlds of two kinds and on real scores: what it earns of what is known, and its rivals."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Result, say
from benchmarks.meta_knowable import knowable, regimes_known
from benchmarks.meta_moments import KINDS, moment_world
from benchmarks.meta_real import FIRST, folder, real_pools
from benchmarks.meta_rivals import boa, exponential_weights, fixed_share, stacking, static_ridge
from benchmarks.meta_worlds import CLOCK, Planted, made_world, oracle_weights, permuted_contexts, simulated_history
from eravane.core.config import GateConfig
from eravane.gate import cells
from eravane.gate.experts import correlation
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraOutcome, GateModel
from eravane.scoring.metrics import hac_mean

FloatArray = NDArray[np.float64]
LAG, HAC_LAG = CLOCK.score_lag, CLOCK.hac_lag
# Seeds 0 to 4 are for tuning. Where time is short: other reporting seeds ("100,101"), other networks (0: the gate does
# without), processes, and minutes after which no world is begun.
SEEDS, NETWORKS, WORKERS, MINUTES = (f"ERAVANE_META_{name}" for name in ("SEEDS", "NETWORKS", "WORKERS", "MINUTES"))


@dataclass(frozen=True)
class Size:
    """How much is run."""

    seeds: tuple[int, ...]
    eras: int
    null_eras: int
    rows: int
    tested: int
    networks: int
    speed: tuple[int, int, int]


FULL = Size((100, 101, 102, 103, 104), 600, 400, 2_500, 250, 10, (1_000, 60, 10))
QUICK = Size((100,), 240, 200, 800, 60, 2, (120, 12, 2))

RIVALS: Mapping[str, Callable[[Planted, int, int], FloatArray]] = {
    "static_ridge": static_ridge,
    "stacking": stacking,
    "exponential_weights": exponential_weights,
    "fixed_share": fixed_share,
    "boa": boa,
}
MADE = ("structure", "fast", "marginal", "hidden", "null")
# Share of the oracle's gain that the gate must reach; of the lagged oracle's, where regimes do not show.
GOALS = {
    "structure": 0.85,
    "fast": 0.90,
    "marginal": 0.85,
    "hidden": 0.62,
    "moments: visible": 0.85,
    "moments: visible and fast": 0.90,
    "moments: hidden": 0.62,
    "moments: many models": 0.80,
}
LAGGED_GOALS = {"hidden": 0.9, "moments: hidden": 0.9, "moments: weak": 0.5, "moments: weak, long": 0.5}
# On real pools the gate may lose this much to the best of equal weight and any ridge.
MAY_LOSE = 1e-4
RIDGES = ("ridge", "ridge_64", "ridge_all")
# Methods that have parameters or regimes of the generator: what can be known, no rivals.
KNOWN = ("knowable_from_data", "knowable_from_scores", "knowable_learnt", "regimes_known")


def main(quick: bool) -> list[Result]:
    """Every bar of the meta-learner; worlds are measured in two processes."""
    size = QUICK if quick else FULL
    if SEEDS in os.environ:
        size = replace(size, seeds=tuple(int(seed) for seed in os.environ[SEEDS].split(",")))
    size = replace(size, networks=int(os.environ.get(NETWORKS, size.networks)))
    results = [*real(size), *speed(size), bad_model(size)]
    kinds = [*(f"moments: {kind}" for kind in KINDS), *MADE]
    # Worlds of moments first: they take seconds, the others minutes.
    tasks = [
        (kind, seed) for part in (kinds[: len(KINDS)], kinds[len(KINDS) :]) for seed in size.seeds for kind in part
    ]
    until = time.time() + 60 * float(os.environ.get(MINUTES, "inf"))
    with ProcessPoolExecutor(int(os.environ.get(WORKERS, 2)), get_context("spawn")) as workers:
        found = list(workers.map(measure, *zip(*tasks, strict=True), [size] * len(tasks), [until] * len(tasks)))
    for kind in kinds:
        measured = [one for (name, _), one in zip(tasks, found, strict=True) if name == kind and one]
        if measured:
            say(f"meta: {kind}: {len(measured)} seeds")
            results += no_regimes(kind, measured) if kind.endswith("null") else planted(kind, measured)
            results += [*apart(kind, measured), *canary(measured), *permutation(measured)]
    return results


@dataclass(frozen=True)
class Measured:
    """Results of one world.

    Attributes:
        gains: per-era correlation over equal weight [T] of everyone.
        equal: mean correlation of equal weight.
    """

    gains: dict[str, FloatArray]
    equal: float


def world_of(kind: str, seed: int, size: Size) -> Planted:
    """A world of the first generator, or of the second where the kind says moments."""
    if kind.startswith("moments: "):
        return moment_world(kind.removeprefix("moments: "), seed)
    return made_world(kind, seed, eras=size.null_eras if kind == "null" else size.eras, rows=size.rows)


def measure(kind: str, seed: int, size: Size, until: float) -> Measured | None:
    """Everything that is driven over one world; None where it is too late to begin."""
    if time.time() > until:
        return None
    begin = time.process_time()
    world = world_of(kind, seed, size)
    first = max(len(world.outcomes) // 2 if "many" in kind else len(world.outcomes) - size.tested, 50)
    weights = prequential(world, first, config_of(size))
    if kind.endswith("null"):
        weights |= canaries(world, first, size) if kind == "null" and seed in size.seeds[:2] else {}
    else:
        weights |= {name: rival(world, first, LAG) for name, rival in RIVALS.items()}
        oracle_EM = oracle_weights(world)
        weights |= {"oracle": oracle_EM[first:], "lagged_oracle": oracle_EM[first - LAG : -LAG]}
        weights |= {name: known_EM[first:] for name, known_EM in known_weights(world).items()}
        if kind in ("hidden", "moments: hidden"):
            broken = prequential(replace(world, versions=()), first, config_of(size, experts=("ridges", "regimes")))
            weights |= {"regimes_without_versions": broken["regimes"]}
        if kind == "moments: visible" and size.networks:
            literal = prequential(world, first, config_of(size, reward="dynamos", experts=("network",)))
            weights |= {"network_dynamos": literal["network"]}
    if kind == "structure" and seed in size.seeds[:2] and size.networks:
        weights |= permuted(world, first, seed, size)
    say(f"meta: {kind} {seed}, {time.process_time() - begin:.0f} CPU seconds")
    tested = world.outcomes[first:]
    equal = scores(tested, weights["equal_weight"])
    gains = {name: scores(tested, w_TM) - equal for name, w_TM in weights.items() if name != "equal_weight"}
    return Measured(gains, float(equal.mean()))


def known_weights(world: Planted) -> dict[str, FloatArray]:
    """Weights [E, M] of methods that have a generator's parameters; the last one has its regimes alone."""
    outcomes, truth = world.outcomes, world.truths["scores"]
    return {f"knowable_from_{what}": knowable(outcomes, known, LAG) for what, known in world.truths.items()} | {
        "knowable_learnt": knowable(outcomes, truth, LAG, learnt=True),
        "regimes_known": regimes_known(outcomes, world.versions, world.version_scores, truth, LAG),
    }


def config_of(size: Size, **changes: Any) -> GateConfig:
    """The default gate with the benchmark's number of networks, without that expert where there is none."""
    usual = GateConfig(seeds=max(size.networks, 1))
    experts = tuple(name for name in usual.experts if size.networks or name != "network")
    return replace(usual, **{"experts": experts, **changes})


def prequential(world: Planted, first: int, config: GateConfig, lag: int = LAG) -> dict[str, FloatArray]:
    """Drive the meta-learner over a world's tested eras as the loop does; weights [T, M] of everyone."""
    learner = MetaLearner(config, world.models, lag=lag, seed=0)
    rows: dict[str, list[FloatArray]] = {}
    versions, seen = learner.versions, 0
    assert versions is not None or not world.versions
    for now in world.outcomes[first:]:
        while versions is not None and len(versions.kept) < len(world.versions):
            if (version := world.versions[len(versions.kept)]).start > now.era:
                break
            versions.add(version)
        while seen < len(world.outcomes) and world.outcomes[seen].era <= now.era - lag:
            learner.observe(world.outcomes[seen])
            if versions is not None and world.versions:
                versions.score(world.outcomes[seen].era, world.version_scores[world.outcomes[seen].era])
            seen += 1
        learner.learn(now.era)
        open_M = learner.decide(now.era, now.facts)
        closed = ~open_M
        C_MM, dispersion_M = now.C_MM.copy(), now.dispersion_M.copy()
        C_MM[closed], C_MM[:, closed], dispersion_M[closed] = np.nan, np.nan, np.nan
        rows.setdefault("gate", []).append(learner.weigh(now.era, now.facts, open_M, C_MM, dispersion_M))
        for name, weights_M in learner.expert_weights(now.era).items():
            rows.setdefault(name, []).append(weights_M)
    return {name: np.stack(series) for name, series in rows.items()}


def scores(outcomes: Sequence[EraOutcome], w_TM: FloatArray) -> FloatArray:
    """Correlation of weighted ensembles with the target [T]."""
    return np.array([correlation(w, o.c_M, o.C_MM) for w, o in zip(w_TM, outcomes, strict=True)])


class Pooled:
    """A mean over worlds; its error adds the worlds' own HAC errors."""

    def __init__(self, series: Sequence[FloatArray]) -> None:
        parts = [hac_mean(series_T, HAC_LAG) for series_T in series]
        self.means = [part.mean for part in parts]
        self.mean = float(np.mean(self.means))
        self.se = float(np.sqrt(np.sum([part.se**2 for part in parts])) / len(parts))
        self.series = series

    @property
    def t(self) -> float:
        """Pooled HAC t statistic."""
        return self.mean / self.se if self.se > 0 else 0.0

    def share(self, oracle: Pooled) -> float:
        """Share of the oracle's gain, on as many of the first worlds as this one was run on."""
        return self.mean / float(np.mean(oracle.means[: len(self.means)]))

    def text(self, oracle: Pooled) -> str:
        """Gain, t, and the share of the oracle's gain per seed."""
        shares = ", ".join(f"{mean / top:.2f}" for mean, top in zip(self.means, oracle.means, strict=False))
        return f"gain {self.mean:+.4f}, t {self.t:.1f}; by seed {shares}"


def planted(kind: str, measured: Sequence[Measured]) -> list[Result]:
    """One kind of world: gains of the gate, its experts and rivals, as shares of the oracle's."""
    names = [name for name in measured[0].gains if not name.startswith("contexts_")]
    rows = {name: Pooled([one.gains[name] for one in measured if name in one.gains]) for name in names}
    oracle = rows.pop("oracle")
    results = [Result(f"{kind}: oracle", oracle.mean * 1e4, "1e-4 CORR over equal weight", detail=oracle.text(oracle))]
    for name, row in sorted(rows.items(), key=lambda item: -item[1].share(oracle)):
        bar = GOALS.get(kind) if name == "gate" else None
        results.append(Result(f"{kind}: {name}", row.share(oracle), "of the oracle", bar, detail=row.text(oracle)))
    known = rows["gate"].mean / rows["lagged_oracle"].mean
    detail = f"{len(measured)} seeds"
    results.append(Result(f"{kind}: gate", known, "of the lagged oracle", LAGGED_GOALS.get(kind), detail=detail))
    return [*results, against_best(kind, rows)]


def against_best(kind: str, rows: Mapping[str, Pooled]) -> Result:
    """Cost of the top level against the best expert and rival, in 1e-4 CORR."""
    best = max(
        (name for name in rows if name not in ("gate", "lagged_oracle", *KNOWN)), key=lambda name: rows[name].mean
    )
    lead = Pooled([b - g for b, g in zip(rows[best].series, rows["gate"].series, strict=False)])
    detail = f"{best} leads by {lead.mean:+.4f} (error {lead.se:.4f})"
    return Result(f"{kind}: lead of the best expert or rival", lead.mean * 1e4, "1e-4 CORR", 1.0, "lower", detail)


def no_regimes(kind: str, measured: Sequence[Measured]) -> list[Result]:
    """No regimes: the mean difference to equal weight, in units of equal weight's CORR."""
    pooled = Pooled([one.gains["gate"] for one in measured])
    share = 100 * pooled.mean / float(np.mean([one.equal for one in measured]))
    return [Result(f"{kind}: gate over equal", share, "%", -1.0, detail=f"{pooled.mean:+.5f}, t {pooled.t:.1f}")]


# What one expert is worth beside another one of the same worlds: names, and the least lead.
APART = {
    "regimes_without_versions": ("regimes", "versions' worth to the regimes", 0.0),
    "network": ("network_dynamos", "literal reward of Dynamos less default", None),
}


def apart(kind: str, measured: Sequence[Measured]) -> list[Result]:
    """Cells that stay, where models are refitted; the literal reward of Dynamos, networks alone, equal seeds."""
    results = []
    for base, (other, what, least) in APART.items():
        pairs = [one.gains[other] - one.gains[base] for one in measured if {base, other} <= one.gains.keys()]
        if pairs:
            lead = Pooled(pairs)
            results.append(Result(f"{kind}: {what}", lead.mean * 1e4, "1e-4 CORR", least, detail=f"t {lead.t:.1f}"))
    return results


def real(size: Size) -> list[Result]:
    """Real pools: the gate over equal weight, and against the best of equal weight and the ridges."""
    where = folder()
    if where is None:
        return [Result("real pools: skipped, no folder with scores is at hand", 0.0, "")]
    results = []
    for name, world in real_pools(where):
        first = FIRST
        weights = prequential(world, first, config_of(size))
        tested = world.outcomes[first:]
        equal = scores(tested, weights.pop("equal_weight"))
        rows = {expert: Pooled([scores(tested, w_TM) - equal]) for expert, w_TM in weights.items()}
        best = max(0.0, *(rows[ridge].mean for ridge in RIDGES))
        texts = ", ".join(f"{expert} {1e4 * row.mean:+.1f} ({row.t:.1f})" for expert, row in rows.items())
        gate = rows["gate"]
        results.append(
            Result(f"{name}: gate over equal", 1e4 * gate.mean, "1e-4 CORR", detail=f"t {gate.t:.1f}; {texts}")
        )
        results.append(
            Result(f"{name}: behind the best ridge", 1e4 * (best - gate.mean), "1e-4 CORR", 1e4 * MAY_LOSE, "lower")
        )
    return results


def bad_model(size: Size) -> Result:
    """One of four base models is bad: worlds in which its weight is below a quarter of equal 30 eras after warm-up."""
    config, below, shares = config_of(size), 0, []
    for seed in size.seeds:
        say(f"meta: bad model {seed}")
        world = simulated_history(seed, eras=config.warmup + LAG + 31)
        late_M = prequential(world, 0, config)["gate"][-5:].mean(axis=0)
        shares.append(late_M[-1] * len(late_M))
        below += shares[-1] < 0.25
    detail = "weight / equal weight, mean of the last 5 eras: " + ", ".join(f"{share:.2f}" for share in shares)
    return Result("bad model: worlds in which it is shut out", below / len(size.seeds), "of all", 0.8, detail=detail)


@contextmanager
def short_memory() -> Iterator[None]:
    """Ridges that remember two eras: what overlapping labels leak shows at once."""
    usual = cells.RIDGES
    cells.RIDGES = {**usual, "ridge": 2.0}
    try:
        yield
    finally:
        cells.RIDGES = usual


def canaries(world: Planted, first: int, size: Size) -> dict[str, FloatArray]:
    """The gate with a short memory, at the legal lag and at one that leaks."""
    config = config_of(size, experts=("ridges",), rehearsal=52)
    with short_memory():
        return {f"canary_lag_{lag}": prequential(world, first, config, lag)["gate"] for lag in (LAG, 1)}


def canary(measured: Sequence[Measured]) -> list[Result]:
    """A lag of 1 lets labels leak: without regimes the gain must then jump."""
    measured = [m for m in measured if "canary_lag_1" in m.gains]
    if not measured:
        return []
    fair, foul = (Pooled([m.gains[f"canary_lag_{lag}"] for m in measured]) for lag in (LAG, 1))
    detail = f"gain {fair.mean:+.4f} (t {fair.t:.1f}) with the legal lag, {foul.mean:+.4f} with lag 1"
    return [Result("canary: t of the gain at lag 1", foul.t, "", 10.0, detail=detail)]


def permuted(world: Planted, first: int, seed: int, size: Size) -> dict[str, FloatArray]:
    """The network on contexts alone: true ones, and ones that belong to other eras."""
    config = config_of(size, inputs=("structure", "marginals"))
    return {
        f"contexts_{name}": prequential(shown, first, config)["network"]
        for name, shown in (("true", world), ("permuted", permuted_contexts(world, 16, seed)))
    }


def permutation(measured: Sequence[Measured]) -> list[Result]:
    """Contexts permuted against outcomes in blocks of 16 eras: what they gained beyond static weights must go."""
    measured = [m for m in measured if "contexts_true" in m.gains]
    if not measured:
        return []
    true, moved = (
        Pooled([m.gains[f"contexts_{name}"] - m.gains["static_ridge"] for m in measured])
        for name in ("true", "permuted")
    )
    return [
        Result("permutation: t of contexts beyond static weights", true.t, "", 2.0, detail=f"gain {true.mean:+.4f}"),
        Result("permutation: t once permuted", moved.t, "", 2.0, "lower", f"gain {moved.mean:+.4f}"),
    ]


def speed(size: Size) -> list[Result]:
    """Seconds of a full training, and of a step at a late era against one at an early one."""
    eras, models, networks = size.speed
    world = simulated_history(0, eras=eras, models=models)
    config = GateConfig(seeds=networks, rehearsal=0)
    learner = MetaLearner(
        config, [GateModel(m.model_id, m.feature_set, m.group) for m in world.models], lag=LAG, seed=0
    )
    for outcome in world.outcomes:
        learner.observe(outcome)
    begin = time.process_time()
    learner.learn(world.outcomes[-1].era + LAG)
    taken = time.process_time() - begin
    detail = f"CPU seconds on one thread: {eras} eras x {models} models x {networks} networks"
    early, late = _step_seconds(world, (100 * eras // 1_000, eras - 30), config)
    ratio = f"{1e3 * early:.0f} and {1e3 * late:.0f} ms, medians of 20 steps of the gate"
    return [
        Result("speed: full training", taken, "s", 60.0, "lower", detail),
        Result("speed: late step / early step", late / early, "x", 1.2, "lower", ratio),
    ]


def _step_seconds(world: Planted, starts: Sequence[int], config: GateConfig) -> list[float]:
    """CPU seconds of learning, deciding and weighing when so many eras are resolved, medians of 20 eras, in turns."""
    learners = [MetaLearner(config, world.models, lag=LAG, seed=0) for _ in starts]
    for learner, known in zip(learners, starts, strict=True):
        for outcome in world.outcomes[:known]:
            learner.observe(outcome)
    everyone, taken = np.ones(len(world.models), dtype=bool), []
    for step in range(21):
        for learner, known in zip(learners, starts, strict=True):
            outcome, begin = world.outcomes[known + step], time.process_time()
            era = outcome.era + LAG
            learner.observe(outcome)
            learner.learn(era)
            learner.decide(era, outcome.facts)
            learner.weigh(era, outcome.facts, everyone, outcome.C_MM, outcome.dispersion_M)
            taken.append(time.process_time() - begin)
    return [float(np.median(taken[len(starts) + n :: len(starts)])) for n in range(len(starts))]
