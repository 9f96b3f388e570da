"""The meta-learner on planted worlds: its share of the oracle's gain, rivals, ablations, safety and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from benchmarks.meta_worlds import CLOCK, Planted, made_world, oracle_weights, permuted_contexts, simulated_history
from eravane.config import GateConfig
from eravane.experts import correlation
from eravane.gate import MetaLearner
from eravane.metrics import hac_mean
from eravane.outcomes import GateModel

FloatArray = NDArray[np.float64]
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

# Ablations compare networks alone: fewer nets, refitted every 50 eras, no warm starts ("exact" is the default so run).
ABLATED_NETWORKS = 4

RIVALS: Mapping[str, Callable[[Planted, int, int], FloatArray]] = {
    "static_ridge": static_ridge,
    "stacking": stacking,
    "exponential_weights": exponential_weights,
    "fixed_share": fixed_share,
    "boa": boa,
    "one_output_per_model": one_output_per_model,
}
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "exact": {},
    "reinforce": {"gradient": "reinforce"},
    "literal_reward": {"reward": "dynamos"},
    "without_prototypes": {"prototype_weight": 0.0},
    "without_scores": {"inputs": ("structure", "marginals", "agreement")},
    "without_structure": {"inputs": ("scores", "marginals", "agreement")},
    "without_marginals": {"inputs": ("scores", "structure", "agreement")},
    "without_agreement": {"inputs": ("scores", "structure", "marginals")},
    "sparsemax_gates": {"gates": "sparsemax"},
}
GOALS = {"structure": 0.70, "marginal": 0.50, "hidden": 0.50}


def main(quick: bool) -> list[Result]:
    """Every bar of the meta-learner."""
    size = QUICK if quick else FULL
    results: list[Result] = []
    for kind, goal in GOALS.items():
        results += planted(kind, goal, size)
    results += [no_regimes(size), bad_model(size), *canary(size), *permutation(size), speed(size)]
    return results


def config_of(size: Size, **changes: object) -> GateConfig:
    """The default gate with the benchmark's number of networks."""
    return replace(GateConfig(seeds=size.networks), **changes)


def planted(kind: str, goal: float, size: Size) -> list[Result]:
    """One planted world: gains of the gate, the network alone, comparators, rivals and ablations."""
    gains: dict[str, list[FloatArray]] = {}
    open_share = []
    for seed in size.seeds:
        say(f"meta: {kind} {seed}")
        world = made_world(kind, seed, eras=size.eras, rows=size.rows)
        weights, opened = everyone(world, size)
        open_share.append(opened)
        for name, series_T in gains_of(world, weights, size.tested).items():
            gains.setdefault(name, []).append(series_T)
    oracle = Pooled(gains.pop("oracle"))
    rows = {name: Pooled(series) for name, series in gains.items()}
    results = [Result(f"{kind}: oracle", oracle.mean * 1e4, "1e-4 CORR over equal weight", detail=oracle.text(oracle))]
    for name, row in sorted(rows.items(), key=lambda item: -item[1].mean):
        bar = goal if name == "gate" else None
        results.append(Result(f"{kind}: {name}", row.mean / oracle.mean, "of the oracle", bar, detail=row.text(oracle)))
    results.append(Result(f"{kind}: gate's HAC t", rows["gate"].t, "", 3.0))
    results += [against_best(kind, rows, oracle), reinforce_against_exact(kind, rows)]
    detail = "share of base models the gate would run"
    return [*results, Result(f"{kind}: open gates", float(np.mean(open_share)), "of all", detail=detail)]


def everyone(world: Planted, size: Size) -> tuple[dict[str, FloatArray], float]:
    """Weights of everyone in a world [T, M], and the mean share of open gates."""
    first = len(world.outcomes) - size.tested
    weights, opened = prequential(world, first, config_of(size))
    ablated = config_of(size, seeds=min(size.networks, ABLATED_NETWORKS), refit_every=50, warm_steps=0, rehearsal=0)
    for name, changes in ABLATIONS.items():
        weights[name] = prequential(world, first, replace(ablated, **changes))[0]["network"]
    weights["gate_of_six"] = prequential(world, first, replace(ablated, max_active=6, rehearsal=104))[0]["gate"]
    weights |= {name: rival(world, first, LAG) for name, rival in RIVALS.items()}
    return weights | {"oracle": oracle_weights(world)[first:]}, opened


def prequential(world: Planted, first: int, config: GateConfig, lag: int = LAG) -> tuple[dict[str, FloatArray], float]:
    """Drive the meta-learner over a world's tested eras as the loop does."""
    learner = MetaLearner(config, world.models, lag=lag, seed=0)
    rows: dict[str, list[FloatArray]] = {}
    opened, seen = [], 0
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
        opened.append(open_M.mean())
    return {name: np.stack(series) for name, series in rows.items()}, float(np.mean(opened))


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

    def text(self, oracle: Pooled) -> str:
        """Gain, t, and the share of the oracle's gain per seed."""
        shares = ", ".join(f"{mean / top:.2f}" for mean, top in zip(self.means, oracle.means, strict=True))
        return f"gain {self.mean:+.4f}, t {self.t:.1f}; by seed {shares}"


COMPARED = ("raw_average", "best_single", "ridge", *(name for name in RIVALS if name != "one_output_per_model"))


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


def no_regimes(size: Size) -> Result:
    """Nothing to find: the mean difference to equal weight, in units of equal weight's CORR."""
    differences, equal = [], []
    for seed in size.seeds:
        say(f"meta: null {seed}")
        world = made_world("null", seed, eras=size.null_eras, rows=size.rows)
        first = len(world.outcomes) - min(size.tested, len(world.outcomes) - 50)
        weights, _ = prequential(world, first, config_of(size))
        differences.append(gains_of(world, weights, len(world.outcomes) - first)["gate"])
        equal.append(scores(world.outcomes[first:], weights["equal_weight"]).mean())
    pooled = Pooled(differences)
    share = 100 * pooled.mean / float(np.mean(equal))
    return Result("null: gate against equal weight", share, "%", -2.0, detail=f"{pooled.mean:+.5f}, t {pooled.t:.1f}")


def bad_model(size: Size) -> Result:
    """One of four base models is bad: worlds in which its weight is below a quarter of equal 30 eras after warm-up."""
    config, below, shares = config_of(size), 0, []
    for seed in size.seeds:
        say(f"meta: bad model {seed}")
        world = simulated_history(seed, eras=config.warmup + LAG + 31)
        weights, _ = prequential(world, 0, config)
        late_M = weights["gate"][-5:].mean(axis=0)
        shares.append(late_M[-1] * len(late_M))
        below += shares[-1] < 0.25
    detail = "weight / equal weight, mean of the last 5 eras: " + ", ".join(f"{share:.2f}" for share in shares)
    return Result("bad model: worlds in which it is shut out", below / len(size.seeds), "of all", 0.8, detail=detail)


def canary(size: Size) -> list[Result]:
    """A lag of 1 lets labels leak: without regimes the gain must then jump."""
    legal, leaking = [], []
    for seed in size.seeds[:2]:
        say(f"meta: canary {seed}")
        world = made_world("null", seed, eras=size.null_eras, rows=size.rows)
        first = len(world.outcomes) // 2
        for lag, series in ((LAG, legal), (1, leaking)):
            weights, _ = prequential(world, first, config_of(size, half_lives=(1.0, 4.0, 16.0)), lag)
            series.append(gains_of(world, weights, len(world.outcomes) - first)["gate"])
    fair, foul = Pooled(legal), Pooled(leaking)
    detail = f"gain {fair.mean:+.4f} (t {fair.t:.1f}) with the legal lag, {foul.mean:+.4f} with lag 1"
    return [Result("canary: t of the gain at lag 1", foul.t, "", 10.0, detail=detail)]


def permutation(size: Size) -> list[Result]:
    """Contexts permuted against outcomes in blocks of 16 eras: what they gained beyond static weights must go."""
    rows: dict[str, list[FloatArray]] = {"true": [], "permuted": []}
    config = config_of(
        size,
        inputs=("structure", "marginals"),
        seeds=min(size.networks, ABLATED_NETWORKS),
        refit_every=50,
        warm_steps=0,
        rehearsal=0,
    )
    for seed in size.seeds:
        say(f"meta: permutation {seed}")
        world = made_world("structure", seed, eras=size.eras, rows=size.rows)
        first = len(world.outcomes) - size.tested
        for name, shown in (("true", world), ("permuted", permuted_contexts(world, 16, seed))):
            weights, _ = prequential(shown, first, config)
            gains = gains_of(shown, {**weights, "static": static_ridge(shown, first, LAG)}, size.tested)
            rows[name].append(gains["network"] - gains["static"])
    true, permuted = Pooled(rows["true"]), Pooled(rows["permuted"])
    return [
        Result("permutation: t of contexts beyond static weights", true.t, "", 2.0, detail=f"gain {true.mean:+.4f}"),
        Result("permutation: t once permuted", permuted.t, "", 2.0, "lower", f"gain {permuted.mean:+.4f}"),
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
