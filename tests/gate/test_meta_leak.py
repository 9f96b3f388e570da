"""Canaries: a lag that is too short shows at once, and contexts that belong to other eras teach nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eravane.core.config import GateConfig
from eravane.gate import cells, records
from eravane.gate.experts import correlation, ridge_weights
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel
from eravane.scoring.metrics import hac_mean

MODELS, ERAS, FIRST, LAG = 9, 300, 160, 6
C_MM = 0.3 + 0.7 * np.eye(MODELS)
SMALL = GateConfig(warmup=40, seeds=2, refit_every=70, rehearsal=40)


def world(seed, regimes):
    """Labels that overlap over four weeks.

    With regimes (of 15 eras each), the models that are good show it in their own statistics.
    """
    rng = np.random.default_rng(seed)
    weekly_TM = rng.standard_normal((ERAS + 3, MODELS)) @ np.linalg.cholesky(C_MM).T / np.sqrt(4_000)
    cells = tuple(np.arange(m, m + 1) for m in range(MODELS))
    outcomes = []
    for era in range(1, ERAS + 1):
        good_M = np.arange(MODELS) % 3 == era // 15 % 3 if regimes else np.zeros(MODELS, dtype=bool)
        c_M = np.where(good_M, 0.035, 0.008) + weekly_TM[era - 1 : era + 3].sum(axis=0) / 2
        shown_M1 = (2.0 * good_M + rng.standard_normal(MODELS))[:, None]
        facts = EraFacts(shown_M1, np.zeros(1), ("shown",), ("rows",), np.zeros((0, MODELS), np.float32), cells)
        outcomes.append(EraOutcome(era, c_M, c_M, C_MM, facts, np.ones(MODELS)))
    return outcomes


def gains(outcomes, config, lag, *experts, horizon=4):
    """Per-era gain over equal weight of each expert, and of weights that were fixed at the first tested era."""
    pool = [GateModel(f"m{m}", "all", f"g{m}") for m in range(MODELS)]
    learner, seen, rows = MetaLearner(config, pool, lag=lag, horizon=horizon, seed=0), 0, []
    everyone = np.ones(MODELS, dtype=bool)
    past = [o for o in outcomes if o.era <= outcomes[FIRST].era - lag]
    static_M = ridge_weights(np.mean([o.c_M for o in past], axis=0), C_MM, 1.0, everyone)
    for now in outcomes[FIRST:]:
        while outcomes[seen].era <= now.era - lag:
            learner.observe(outcomes[seen])
            seen += 1
        learner.learn(now.era)
        learner.weigh(now.era, now.facts, everyone, C_MM, now.dispersion_M)
        equal = correlation(everyone / MODELS, now.c_M, C_MM)
        chosen = learner.expert_weights(now.era)
        compared = [*(chosen[expert] for expert in experts), static_M]
        rows.append([correlation(w, now.c_M, C_MM) - equal for w in compared])
    return np.array(rows).T


def test_a_lag_of_one_makes_the_gain_jump(monkeypatch):
    monkeypatch.setattr(records, "HALF_LIVES", (1.0, 4.0, 16.0))
    monkeypatch.setattr(cells, "RIDGES", {**cells.RIDGES, "ridge": 2.0})
    outcomes, experts = world(0, regimes=False), ("ridge", "network")
    *legal, _ = gains(outcomes, SMALL, LAG, *experts, horizon=1)
    *leaking, _ = gains(outcomes, SMALL, 1, *experts, horizon=1)
    for before, after in zip(legal, leaking, strict=True):
        assert hac_mean(before, 8).t < 2
        assert hac_mean(after, 8).t > 6


def test_contexts_of_other_eras_teach_nothing_beyond_static_weights():
    config = replace(SMALL, inputs=("structure",))
    outcomes = world(1, regimes=True)
    chosen, static = gains(outcomes, config, LAG, "network")
    assert hac_mean(chosen - static, 8).t > 3
    order = np.concatenate([np.arange(s, s + 12) for s in np.random.default_rng(0).permutation(np.arange(0, ERAS, 12))])
    permuted = [replace(o, facts=outcomes[i].facts) for o, i in zip(outcomes, order, strict=True)]
    chosen, static = gains(permuted, config, LAG, "network")
    assert hac_mean(chosen - static, 8).t < 2
