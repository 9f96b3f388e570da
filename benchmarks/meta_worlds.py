"""Planted worlds for the meta-learner's benchmark: made data, a ridge model per feature group, resolved outcomes.

Features, regimes and overlapping targets come from `eravane.synth`; facts from the engine's own `ContextBuilder`. The
base models are linear (refitted every 40 eras on the last 80, purged as trees are, and scored before that window as the
loop does), so that a world takes a minute.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.meta_knowable import Truth, condensed
from eravane.calendar.clock import Clock
from eravane.calendar.horizon import Horizon
from eravane.core.config import GateConfig
from eravane.core.files import write_atomically
from eravane.gate.context import STRUCTURE, ContextBuilder
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel
from eravane.gate.versions import Version, VersionScores, scored_versions
from eravane.loop.updates import eras_before
from eravane.scoring.ensemble import gaussianize, one_era, standardised_target
from eravane.synth.config import SynthConfig
from eravane.synth.world import World
from eravane_kernels import cpu as ops

FloatArray = NDArray[np.float64]

KEPT = "ERAVANE_WORLDS"
TARGET = "target_ender_20"
CLOCK = Clock.of(Horizon.required(TARGET))
GROUPS, FEATURES = 12, 240
FIRST_PREDICTED, REFIT_EVERY, WINDOW, RIDGE = 90, 40, 80, 0.05
# Correlation of the five target values with the normal variable that they cut into 5/20/50/20/5 %.
KEPT_SHARE = 0.941
# Rows on which versions of the models are compared.
REFERENCE = 2_000


@dataclass(frozen=True, eq=False)
class Planted:
    """A world's outcomes in ascending order, its pool, the true regime of every outcome, and versions of its models.

    Attributes:
        versions: every version of the models; version_scores: what versions were paid, by era.
        truths: what the generator knows, by what is read of resolved eras: all of the data, or scores.
    """

    outcomes: list[EraOutcome]
    models: tuple[GateModel, ...]
    regime_E: NDArray[np.int64]
    versions: tuple[Version, ...] = ()
    version_scores: Mapping[int, VersionScores] = field(default_factory=dict)
    truths: Mapping[str, Truth] = field(default_factory=dict)


def made_world(kind: str, seed: int, *, eras: int, rows: int = 4_000) -> Planted:
    """A world as `make_world` makes it, from the folder that ERAVANE_WORLDS names if it is there.

    Set that variable to tune on the same worlds repeatedly, and empty the folder when the worlds change.
    """
    if KEPT not in os.environ:
        return make_world(kind, seed, eras=eras, rows=rows)
    path = Path(os.environ[KEPT]) / f"{kind}-{seed}-{eras}-{rows}.pkl"
    if not path.exists():
        write_atomically(path, pickle.dumps(make_world(kind, seed, eras=eras, rows=rows)))
    kept: Planted = pickle.loads(path.read_bytes())
    return kept


def make_world(kind: str, seed: int, *, eras: int, rows: int) -> Planted:
    """Build a world: kind is structure, marginal, hidden (persistence .97), fast (structure, .75) or null.

    The tiers are two halves of the groups, so that the gate has two agents.
    """
    regimes: Any = kind if kind in ("structure", "marginal", "hidden") else "structure"
    config = SynthConfig(
        eras=eras, rows=rows, features=FEATURES, groups=GROUPS, seed=seed, targets=(TARGET,), main_target=TARGET
    )
    persistence = 0.75 if kind == "fast" else 0.97
    world = World(replace(config, regimes=regimes, null=kind == "null", persistence=persistence))
    columns = [np.flatnonzero(world.layout.home_F == group) for group in range(GROUPS)]
    models = tuple(GateModel(f"g{g}", "medium" if g % 2 else "small", str(g)) for g in range(GROUPS))
    cells = {(model.feature_set, model.group): columns[g] for g, model in enumerate(models)}
    builder = ContextBuilder(models, cells, ops, GateConfig())
    base = _Base(columns)
    outcomes, regime, version_scores, reference_FN = [], [], {}, None
    loads: list[FloatArray] = []
    resolved: dict[str, list[tuple[FloatArray, FloatArray]]] = {"data": [], "scores": []}
    for made in world.eras():
        if made.era > eras:
            break
        x_FN, label_N = _standard(made.features_FN), made.targets_TN[0]
        if made.era >= FIRST_PREDICTED:
            base_MN = base.predict(x_FN, made.era)
            if reference_FN is None:
                reference_FN = x_FN[:, :REFERENCE]
            facts = builder.facts(made.features_FN, made.era)
            y_N, z_MN = standardised_target(label_N), gaussianize(base_MN, ops)
            offsets = one_era(y_N.size)
            outcomes.append(
                EraOutcome(
                    era=made.era,
                    scores_M=ops.numerai_corr(base_MN, label_N, offsets)[:, 0],
                    c_M=z_MN @ y_N / y_N.size,
                    C_MM=ops.gram(z_MN, offsets)[0],
                    facts=facts,
                    dispersion_M=ops.dispersion(base_MN, offsets)[:, 0],
                )
            )
            regime.append(made.regime)
            version_scores[made.era], z_KN = base.scores(x_FN, y_N)
            s_GN, rows = made.signals_GN.astype(np.float64), y_N.size
            loads_KG, agree_GG = config.snr * KEPT_SHARE * z_KN @ s_GN.T / rows, s_GN @ s_GN.T / rows
            loads.append(loads_KG[-len(models) :])
            paid_K = version_scores[made.era].paid_KM.ravel()
            resolved["scores"].append(condensed(paid_K, loads_KG, z_KN @ z_KN.T / rows, rows))
            resolved["data"].append(condensed(s_GN @ y_N / rows, config.snr * KEPT_SHARE * agree_GG, agree_GG, rows))
        base.add(made.era, x_FN, standardised_target(label_N))
    assert reference_FN is not None
    fresh_E = np.array([(outcome.era - FIRST_PREDICTED) % REFIT_EVERY == 0 for outcome in outcomes])
    truths = {
        what: Truth(
            pay_RG=world.weights_RG,
            regime_E=np.array(regime),
            leave_A=np.array([1 - persistence]),
            shown=kind != "hidden",
            returns=config.return_noise,
            drift=0.0,
            keep=1.0,
            white=1 - KEPT_SHARE**2,
            loads_EMG=np.stack(loads),
            seen_EG=np.stack([seen_G for seen_G, _ in pairs]),
            reads_EGG=np.stack([reads_GG for _, reads_GG in pairs]),
            renewed_E=(what == "scores") & fresh_E,
        )
        for what, pairs in resolved.items()
    }
    return Planted(outcomes, models, np.array(regime), base.versions(reference_FN), version_scores, truths)


class _Base:
    """One ridge regression per feature group, from each era's own moments."""

    def __init__(self, columns: Sequence[NDArray[np.int64]]) -> None:
        self._columns = columns
        self._moments: list[tuple[int, list[FloatArray], list[FloatArray]]] = []
        self._weights: list[FloatArray] = []
        self._kept: list[tuple[int, list[FloatArray]]] = []

    def add(self, era: int, x_FN: NDArray[np.float32], y_N: FloatArray) -> None:
        squares = [x_FN[c].astype(np.float64) @ x_FN[c].T / y_N.size for c in self._columns]
        self._moments.append((era, squares, [x_FN[c] @ y_N / y_N.size for c in self._columns]))

    def predict(self, x_FN: NDArray[np.float32], era: int) -> NDArray[np.float32]:
        if (era - FIRST_PREDICTED) % REFIT_EVERY == 0:
            newest = era - CLOCK.tree_lag
            usable = [item for item in self._moments if newest - WINDOW < item[0] <= newest]
            self._weights = []
            for g, c in enumerate(self._columns):
                square, product = sum(item[1][g] for item in usable), sum(item[2][g] for item in usable)
                weight_C = np.linalg.solve(square + RIDGE * len(usable) * np.eye(len(c)), product)
                self._weights.append(np.asarray(weight_C, dtype=np.float64))
            self._kept.append((era, self._weights))
        return self._evaluate(self._weights, x_FN)

    def scores(self, x_FN: NDArray[np.float32], y_N: FloatArray) -> tuple[VersionScores, FloatArray]:
        """Scores of versions in an era, all of them out of sample, and their predictions [K M, N]."""
        numbers = scored_versions(len(self._kept))
        z_KMN = np.stack([gaussianize(self._evaluate(self._kept[n][1], x_FN), ops) for n in numbers])
        paid_KM = np.stack([z_MN @ y_N / y_N.size for z_MN in z_KMN])
        return VersionScores(numbers, paid_KM), z_KMN.reshape(-1, y_N.size).astype(np.float64)

    def versions(self, reference_FN: NDArray[np.float32]) -> tuple[Version, ...]:
        """Every version so far, by what it predicts of reference rows."""
        found = []
        for start, weights in self._kept:
            z_MN = self._evaluate(weights, reference_FN)
            z_MN = (z_MN - z_MN.mean(axis=1, keepdims=True)) / z_MN.std(axis=1, keepdims=True)
            past = {era: _c(weights, moments) for era, *moments in self._moments if era in before(start)}
            found.append(Version(start, {0: z_MN.astype(np.float32)}, past))
        return tuple(found)

    def _evaluate(self, weights: Sequence[FloatArray], x_FN: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([w @ x_FN[c] for w, c in zip(weights, self._columns, strict=True)]).astype(np.float32)


def before(start: int) -> range:
    """Predicted eras before the window of models that start in an era, as far as the loop scores them there."""
    eras = eras_before(start - CLOCK.tree_lag - WINDOW + 1, WINDOW, CLOCK.purge)
    return range(max(FIRST_PREDICTED, eras.start), eras.stop)


def _c(weights: Sequence[FloatArray], moments: Sequence[Sequence[FloatArray]]) -> FloatArray:
    """c of linear models by an era's moments [M], from their predictions in place of ranks (correlation .999)."""
    squares, products = moments
    return np.array([w @ p / np.sqrt(w @ s @ w) for w, s, p in zip(weights, squares, products, strict=True)])


def _standard(values_FN: NDArray[np.int8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns with mean 0 and standard deviation 1; a missing or constant one is 0."""
    x_FN = values_FN.astype(np.float32)
    known_FN = np.isfinite(x_FN)
    count_F1 = np.maximum(known_FN.sum(axis=1, keepdims=True), 1)
    x_FN -= np.where(known_FN, x_FN, 0).sum(axis=1, keepdims=True) / count_F1
    x_FN[~known_FN] = 0
    spread_F1 = np.sqrt((x_FN**2).sum(axis=1, keepdims=True) / count_F1)
    return np.asarray(x_FN / np.where(spread_F1 > 1e-6, spread_F1, 1), dtype=np.float32)


def oracle_weights(world: Planted) -> FloatArray:
    """Per regime the non-negative weights that maximise mean CORR over all its eras, applied by true regime [E, M]."""
    c_EM = np.stack([outcome.c_M for outcome in world.outcomes])
    C_EMM = np.stack([outcome.C_MM for outcome in world.outcomes])
    weights_EM = np.zeros_like(c_EM)
    for regime in np.unique(world.regime_E):
        rows = world.regime_E == regime
        weights_EM[rows] = _best_weights(c_EM[rows], C_EMM[rows])
    return weights_EM


def _best_weights(c_EM: FloatArray, C_EMM: FloatArray) -> FloatArray:
    size = c_EM.shape[1]

    def loss(w_M: FloatArray) -> tuple[float, FloatArray]:
        spread_EM = C_EMM @ w_M
        s_E, product_E = np.sqrt(spread_EM @ w_M + 1e-12), c_EM @ w_M
        slope_M = (c_EM / s_E[:, None] - (product_E / s_E**3)[:, None] * spread_EM).mean(axis=0)
        return -1e3 * float((product_E / s_E).mean()), -1e3 * slope_M

    start = np.full(size, 1.0 / size)
    result = minimize(loss, start, jac=True, bounds=[(0.0, None)] * size, method="L-BFGS-B")
    return np.asarray(result.x / result.x.sum())


def permuted_contexts(world: Planted, block: int, seed: int) -> Planted:
    """The world with its facts permuted against its outcomes in blocks of eras: what contexts tell is then lost."""
    starts = np.arange(0, len(world.outcomes), block)
    order = np.concatenate([np.arange(s, s + block) for s in np.random.default_rng(seed).permutation(starts)])
    order = order[order < len(world.outcomes)]
    facts = [world.outcomes[i].facts for i in order]
    outcomes = [replace(o, facts=f) for o, f in zip(world.outcomes, facts, strict=True)]
    return replace(world, outcomes=outcomes)


def simulated_history(seed: int, *, eras: int, models: int = 4, rows: int = 4_000) -> Planted:
    """Outcomes drawn at the level of their sufficient statistics: three good models in four, every fourth one bad.

    Labels overlap over four weeks; mean CORR is .02 for the good models and -.012 for the bad ones.
    """
    rng = np.random.default_rng(seed)
    pool = tuple(GateModel(f"m{m}", "medium" if m % 2 else "small", str(m)) for m in range(models))
    level_M = np.where(np.arange(models) % 4 == 3, -0.012, 0.02)
    C_MM = 0.3 + 0.7 * np.eye(models)
    weekly_TM = rng.standard_normal((eras + 3, models)) @ np.linalg.cholesky(C_MM).T / np.sqrt(rows)
    cells = tuple(np.arange(5 * m, 5 * m + 5) for m in range(models))
    outcomes = []
    for era in range(1, eras + 1):
        c_M = level_M + weekly_TM[era - 1 : era + 3].sum(axis=0) / 2
        facts = EraFacts(
            model_MS=rng.standard_normal((models, len(STRUCTURE))),
            context_D=np.array([np.log(rows), 0.0]),
            model_names=STRUCTURE,
            context_names=("log_rows", "missing"),
            marginal_KF=rng.standard_normal((7, 5 * models)).astype(np.float32),
            cells=cells,
        )
        outcomes.append(EraOutcome(era, c_M, c_M, C_MM, facts, rng.uniform(0.9, 1.1, models)))
    return Planted(outcomes, pool, np.zeros(eras, dtype=np.int64))
