"""A pool of models with known scores, driven through the gate as the loop does."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load, save

from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel

LAG = 6


def pool(models=6):
    return [GateModel(f"m{m}", "small" if m % 2 else "all", f"g{m}") for m in range(models)]


def outcomes(seed=0, eras=50, models=6, rows=400):
    """Eras whose labels overlap over four weeks, the first half of the models good."""
    rng = np.random.default_rng(seed)
    level_M = np.where(np.arange(models) < models // 2, 0.04, 0.0)
    weekly_TM = rng.standard_normal((eras + 3, models)) / np.sqrt(rows)
    cells = tuple(np.arange(3 * m, 3 * m + 3) for m in range(models))
    result = []
    for era in range(1, eras + 1):
        C_MM = 0.3 + 0.7 * np.eye(models)
        facts = EraFacts(
            rng.standard_normal((models, 2)),
            np.array([6.0, 0.0]),
            ("a", "b"),
            ("log_rows", "missing"),
            rng.standard_normal((7, 3 * models)).astype(np.float32),
            cells,
        )
        c_M = level_M + weekly_TM[era - 1 : era + 3].sum(0) / 2
        result.append(EraOutcome(era, 0.95 * c_M, c_M, C_MM, facts, rng.uniform(0.5, 1.5, models)))
    return result


def drive(learner, history, eras, lag=LAG, every=None):
    """Observe, learn, decide and weigh as the loop does; return gates, weights and the learner."""
    gates, weights = [], []
    for era in eras:
        for outcome in history:
            newest = learner.state()[0]["history.era"]
            if outcome.era <= era - lag and (not len(newest) or outcome.era > newest[-1]):
                learner.observe(outcome)
        learner.learn(era)
        now = history[era - 1]
        open_M = learner.decide(era, now.facts)
        blank = ~open_M
        C_MM, dispersion_M = now.C_MM.copy(), now.dispersion_M.copy()
        C_MM[blank], C_MM[:, blank], dispersion_M[blank] = np.nan, np.nan, np.nan
        gates.append(open_M)
        weights.append(learner.weigh(era, now.facts, open_M, C_MM, dispersion_M))
        if every:
            learner = every(learner)
    return np.stack(gates), np.stack(weights), learner


def through_disk(learner):
    arrays, values = learner.state()
    packed = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return MetaLearner.restore(load(packed), json.loads(json.dumps(values)))
