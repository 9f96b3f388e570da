"""The meta-learner on a GPU comes to the weights of the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from eravane.core.config import GateConfig
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel

LAG, MODELS, ERAS = 6, 8, 120


def weights(device, config):
    rng = np.random.default_rng(0)
    pool = [GateModel(f"m{m}", "small" if m % 2 else "all", f"g{m}") for m in range(MODELS)]
    learner = MetaLearner(config, pool, lag=LAG, seed=0, device=device)
    cells = tuple(np.arange(3 * m, 3 * m + 3) for m in range(MODELS))
    level_M = np.linspace(-0.01, 0.04, MODELS)
    rows, seen = [], 0
    for era in range(1, ERAS + 1):
        marginal_KF = rng.standard_normal((7, 3 * MODELS)).astype(np.float32)
        facts = EraFacts(rng.standard_normal((MODELS, 2)), np.zeros(2), ("a", "b"), ("c", "d"), marginal_KF, cells)
        c_M = level_M + 0.015 * rng.standard_normal(MODELS)
        now = EraOutcome(era, c_M, c_M, 0.3 + 0.7 * np.eye(MODELS), facts, rng.uniform(0.5, 1.5, MODELS))
        rows.append(now)
        if era > 80:
            for outcome in rows[seen : era - LAG]:
                learner.observe(outcome)
            seen = era - LAG
            learner.learn(era)
            open_M = learner.decide(era, facts)
            yield learner.weigh(era, facts, open_M, now.C_MM, now.dispersion_M)


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"reward": "dynamos"}])
def test_cuda_gives_the_cpus_weights(changes):
    config = GateConfig(warmup=40, seeds=4, **changes)
    on_cpu, on_cuda = np.stack(list(weights("cpu", config))), np.stack(list(weights("cuda", config)))
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-4)
