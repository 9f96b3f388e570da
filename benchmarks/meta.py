"""The meta-learner on planted worlds: its share of the oracle's gain, rivals, ablations, safety and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Result, say
from benchmarks.meta_rivals import (
    boa,
    exponential_weights,
    fixed_share,
    one_output_per_model,
    stacking,
    static_ridge,
)
from benchmarks.meta_sparsity import GATES, sparsity
from benchmarks.meta_worlds import CLOCK, Planted, made_world, oracle_weights, permuted_contexts, simulated_history
from eravane.core.config import GateConfig
from eravane.gate.experts import correlation
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import GateModel
from eravane.scoring.metrics import hac_mean

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
LAG, HAC_LAG = CLOCK.score_lag, CLOCK.hac_lag


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


FULL = Size((100, 101, 102, 103, 104), 600, 400, 4_000, 250, 10, (1_000, 40, 10))
QUICK = Size((100,), 240, 200, 800, 60, 2, (120, 12, 2))

# Ablations compare networks alone; "exact" is the default, run as they are. What no bar rests on runs on fewer seeds.
ABLATED_NETWORKS = 4
ABLATED_SEEDS = 3
JUDGED = ("exact", "reinforce")
WORKERS = 2

RIVALS: Mapping[str, Callable[[Planted, int, int], FloatArray]] = {
    "static_ridge": static_ridge,
    "stacking": stacking,
    "exponential_weights": exponential_weights,
    "fixed_share": fixed_share,
    "boa": boa,
    "one_output_per_model": one_output_per_model,
}
COMPARED = (
    *("raw_average", "best_single", "ridge", "change_points"),
    *(name for name in RIVALS if name != "one_output_per_model"),
)
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "exact": {},
    "reinforce": {"gradient": "reinforce"},
    "literal_reward": {"reward": "dynamos"},
    "without_prototypes": {"prototype_weight": 0.0},
    "without_scores": {"inputs": ("structure", "marginals", "agreement")},
    "without_structure": {"inputs": ("scores", "marginals", "agreement")},
    "without_marginals": {"inputs": ("scores", "structure", "agreement")},
    "without_agreement": {"inputs": ("scores", "structure", "marginals")},
    "without_change_points": {"experts": ("ridge",)},
}
GOALS = {"structure": 0.70, "marginal": 0.50, "hidden": 0.50}


def main(quick: bool) -> list[Result]:
    """Every bar of the meta-learner; worlds are measured in two processes."""
    size = QUICK if quick else FULL
    tasks = [(kind, seed) for seed in size.seeds for kind in (*GOALS, "null")]
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as workers:
        found = list(workers.map(measure, *zip(*tasks, strict=True), [size] * len(tasks)))
    measured = {kind: [one for (name, _), one in zip(tasks, found, strict=True) if name == kind] for kind, _ in tasks}
    results: list[Result] = []
    for kind, goal in GOALS.items():
        results += planted(kind, goal, measured[kind])
    results += [no_regimes(measured["null"]), bad_model(size), *canary(measured["null"])]
    results += permutation(measured["structure"])
    seen = [one for kind in GOALS for one in measured[kind]]
    open_TM, resting_TM = (
        {name: [getattr(one, part)[name] for one in seen if name in one.open_TM] for name in GATES}
        for part in ("open_TM", "resting_TM")
    )
    return [*results, *sparsity(open_TM, resting_TM, size.rows), speed(size)]


@dataclass(frozen=True)
class Measured:
    """What one world gave.

    Attributes:
        gains: per-era correlation over equal weight [T] of everyone.
        equal: mean correlation of equal weight.
        open_TM, resting_TM: of the gate, and of the gate that may run half of the models.
    """

    gains: dict[str, FloatArray]
    equal: float
    open_TM: Mapping[str, BoolArray]
    resting_TM: Mapping[str, BoolArray]


def measure(kind: str, seed: int, size: Size) -> Measured:
    """Everything that is driven over one world."""
    begin = time.process_time()
    world = made_world(kind, seed, eras=size.null_eras if kind == "null" else size.eras, rows=size.rows)
    first = max(len(world.outcomes) - size.tested, 50)
    driven = {"gate": prequential(world, first, config_of(size))}
    weights = dict(driven["gate"].weights)
    if kind == "null":
        if seed in size.seeds[:2]:
            weights |= canaries(world, first, size)
    else:
        everything = seed in size.seeds[:ABLATED_SEEDS]
        if everything:
            half = ablated(size, max_active=len(world.models) // 2, rehearsal=104)
            driven["half"] = prequential(world, first, half)
            weights["gate_of_half"] = driven["half"].weights["gate"]
        weights |= ablations(world, first, size, ABLATIONS if everything else JUDGED)
        weights |= {name: RIVALS[name](world, first, LAG) for name in RIVALS if everything or name in COMPARED}
        oracle_EM = oracle_weights(world)
        weights |= {"oracle": oracle_EM[first:], "oracle_of_lagged_regime": oracle_EM[first - LAG : -LAG]}
    if kind == "structure":
        weights |= permuted(world, first, seed, size)
    say(f"meta: {kind} {seed}, {time.process_time() - begin:.0f} CPU seconds")
    tested = world.outcomes[first:]
    return Measured(
        gains=gains_of(world, weights, len(tested)),
        equal=float(scores(tested, weights["equal_weight"]).mean()),
        open_TM={name: one.open_TM for name, one in driven.items()},
        resting_TM={name: one.resting_TM for name, one in driven.items()},
    )


def config_of(size: Size, **changes: object) -> GateConfig:
    """The default gate with the benchmark's number of networks."""
    return replace(GateConfig(seeds=size.networks), **changes)


def ablated(size: Size, **changes: object) -> GateConfig:
    """The gate as ablations run it: fewer nets, seldom refitted, no warm starts, and no rehearsal unless asked for."""
    cheap = {"seeds": min(size.networks, ABLATED_NETWORKS), "refit_every": 125, "warm_steps": 0, "rehearsal": 0}
    return config_of(size, **{**cheap, **changes})


def ablations(world: Planted, first: int, size: Size, names: Iterable[str]) -> dict[str, FloatArray]:
    """Weights of the network alone, without each of its parts."""
    return {name: prequential(world, first, ablated(size, **ABLATIONS[name])).weights["network"] for name in names}


def planted(kind: str, goal: float, measured: Sequence[Measured]) -> list[Result]:
    """One kind of planted world: gains of the gate, the network alone, comparators, rivals and ablations."""
    names = [name for name in measured[0].gains if not name.startswith("contexts_")]
    rows = {name: Pooled([one.gains[name] for one in measured if name in one.gains]) for name in names}
    oracle = rows.pop("oracle")
    results = [Result(f"{kind}: oracle", oracle.mean * 1e4, "1e-4 CORR over equal weight", detail=oracle.text(oracle))]
    for name, row in sorted(rows.items(), key=lambda item: -item[1].share(oracle)):
        bar = goal if name == "gate" else None
        results.append(Result(f"{kind}: {name}", row.share(oracle), "of the oracle", bar, detail=row.text(oracle)))
    results.append(Result(f"{kind}: gate's HAC t", rows["gate"].t, "", 3.0))
    results += [against_best(kind, rows, oracle), reinforce_against_exact(kind, rows)]
    return [*results, *worth_of_contexts(kind, rows)]


@dataclass(frozen=True)
class Driven:
    """What the meta-learner chose over the tested eras: weights [T, M] of everyone, open gates, resting models."""

    weights: dict[str, FloatArray]
    open_TM: BoolArray
    resting_TM: BoolArray


def prequential(world: Planted, first: int, config: GateConfig, lag: int = LAG) -> Driven:
    """Drive the meta-learner over a world's tested eras as the loop does."""
    learner = MetaLearner(config, world.models, lag=lag, seed=0)
    rows: dict[str, list[FloatArray]] = {}
    opened, resting, seen = [], [], 0
    for now in world.outcomes[first:]:
        while seen < len(world.outcomes) and world.outcomes[seen].era <= now.era - lag:
            learner.observe(world.outcomes[seen])
            seen += 1
        learner.learn(now.era)
        open_M = learner.decide(now.era, now.facts)
        closed = ~open_M
        C_MM, dispersion_M = now.C_MM.copy(), now.dispersion_M.copy()
        C_MM[closed], C_MM[:, closed], dispersion_M[closed] = np.nan, np.nan, np.nan
        rows.setdefault("gate", []).append(learner.weigh(now.era, now.facts, open_M, C_MM, dispersion_M))
        rows.setdefault("network", []).append(learner.expert_weights(now.era)["network"])
        for name, weights_M in learner.comparators(now.era, now.C_MM, now.dispersion_M).items():
            rows.setdefault(name, []).append(weights_M)
        opened.append(open_M)
        resting.append(learner.resting_M)
    weights = {name: np.stack(series) for name, series in rows.items()}
    return Driven(weights, np.stack(opened), np.stack(resting))


def gains_of(world: Planted, weights: Mapping[str, FloatArray], tested: int) -> dict[str, FloatArray]:
    """Per-era correlation over equal weight [T] of everyone's weights on the last eras."""
    outcomes = world.outcomes[-tested:]
    equal = scores(outcomes, weights["equal_weight"])
    return {name: scores(outcomes, w_TM) - equal for name, w_TM in weights.items() if name != "equal_weight"}


def scores(outcomes: Sequence[object], w_TM: FloatArray) -> FloatArray:
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


def against_best(kind: str, rows: Mapping[str, Pooled], oracle: Pooled) -> Result:
    """The best comparator's lead over the gate, in units of what is allowed: a tenth of the oracle, or two errors."""
    best = max(COMPARED, key=lambda name: rows[name].mean)
    lead = Pooled([b - g for b, g in zip(rows[best].series, rows["gate"].series, strict=True)])
    allowed = max(0.1 * oracle.mean, 2 * lead.se)
    detail = f"{best} leads by {lead.mean:+.4f} (error {lead.se:.4f})"
    return Result(f"{kind}: best comparator's lead", lead.mean / allowed, "of the allowed", 1.0, "lower", detail)


def reinforce_against_exact(kind: str, rows: Mapping[str, Pooled]) -> Result:
    """REINFORCE's gain against the exact gradient's, networks alone, same size and schedule."""
    return Result(f"{kind}: reinforce / exact", rows["reinforce"].mean / rows["exact"].mean, "x", 0.9)


def worth_of_contexts(kind: str, rows: Mapping[str, Pooled]) -> list[Result]:
    """What the era's own statistics add to lagged scores, where regimes show in them."""
    without = {"structure": "without_structure", "marginal": "without_marginals"}
    if kind not in without:
        return []
    series = [a - b for a, b in zip(rows["exact"].series, rows[without[kind]].series, strict=False)]
    added = Pooled(series)
    return [Result(f"{kind}: t of what contexts add to lagged scores", added.t, "", detail=f"gain {added.mean:+.4f}")]


def no_regimes(measured: Sequence[Measured]) -> Result:
    """Nothing to find: the mean difference to equal weight, in units of equal weight's CORR."""
    pooled = Pooled([one.gains["gate"] for one in measured])
    share = 100 * pooled.mean / float(np.mean([one.equal for one in measured]))
    return Result("null: gate against equal weight", share, "%", -2.0, detail=f"{pooled.mean:+.5f}, t {pooled.t:.1f}")


def bad_model(size: Size) -> Result:
    """One of four base models is bad: worlds in which its weight is below a quarter of equal 30 eras after warm-up."""
    config, below, shares = config_of(size), 0, []
    for seed in size.seeds:
        say(f"meta: bad model {seed}")
        world = simulated_history(seed, eras=config.warmup + LAG + 31)
        late_M = prequential(world, 0, config).weights["gate"][-5:].mean(axis=0)
        shares.append(late_M[-1] * len(late_M))
        below += shares[-1] < 0.25
    detail = "weight / equal weight, mean of the last 5 eras: " + ", ".join(f"{share:.2f}" for share in shares)
    return Result("bad model: worlds in which it is shut out", below / len(size.seeds), "of all", 0.8, detail=detail)


def canaries(world: Planted, first: int, size: Size) -> dict[str, FloatArray]:
    """The gate with short half-lives, at the legal lag and at one that leaks."""
    config = ablated(size, half_lives=(1.0, 4.0, 16.0), rehearsal=52)
    return {f"canary_lag_{lag}": prequential(world, first, config, lag).weights["gate"] for lag in (LAG, 1)}


def canary(measured: Sequence[Measured]) -> list[Result]:
    """A lag of 1 lets labels leak: without regimes the gain must then jump."""
    fair, foul = (
        Pooled([m.gains[f"canary_lag_{lag}"] for m in measured if "canary_lag_1" in m.gains]) for lag in (LAG, 1)
    )
    detail = f"gain {fair.mean:+.4f} (t {fair.t:.1f}) with the legal lag, {foul.mean:+.4f} with lag 1"
    return [Result("canary: t of the gain at lag 1", foul.t, "", 10.0, detail=detail)]


def permuted(world: Planted, first: int, seed: int, size: Size) -> dict[str, FloatArray]:
    """The network on contexts alone: true ones, and ones that belong to other eras."""
    config = ablated(size, inputs=("structure", "marginals"))
    return {
        f"contexts_{name}": prequential(shown, first, config).weights["network"]
        for name, shown in (("true", world), ("permuted", permuted_contexts(world, 16, seed)))
    }


def permutation(measured: Sequence[Measured]) -> list[Result]:
    """Contexts permuted against outcomes in blocks of 16 eras: what they gained beyond static weights must go."""
    true, moved = (
        Pooled([one.gains[f"contexts_{name}"] - one.gains["static_ridge"] for one in measured])
        for name in ("true", "permuted")
    )
    return [
        Result("permutation: t of contexts beyond static weights", true.t, "", 2.0, detail=f"gain {true.mean:+.4f}"),
        Result("permutation: t once permuted", moved.t, "", 2.0, "lower", f"gain {moved.mean:+.4f}"),
    ]


def speed(size: Size) -> Result:
    """Seconds of a full training."""
    eras, models, networks = size.speed
    world = simulated_history(0, eras=eras, models=models)
    pool = [GateModel(model.model_id, model.feature_set, model.group) for model in world.models]
    learner = MetaLearner(GateConfig(seeds=networks, rehearsal=0), pool, lag=LAG, seed=0)
    for outcome in world.outcomes:
        learner.observe(outcome)
    begin = time.process_time()
    learner.learn(world.outcomes[-1].era + LAG)
    taken = time.process_time() - begin
    detail = f"CPU seconds on one thread: {eras} eras x {models} models x {networks} networks"
    return Result("speed: full training", taken, "s", 90.0, "lower", detail)
