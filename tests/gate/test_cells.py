"""Ridges and regimes read what the present models would have been paid, and how this era's predictions agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import nnls

from eravane.core.config import GateConfig
from eravane.gate.cells import RIDGES, Cells
from eravane.gate.experts import STABLE, shrunk
from eravane.gate.gate import MetaLearner
from eravane.gate.network import Network
from eravane.gate.outcomes import PAID_BY, History
from eravane.gate.portable_weights import STEADY
from eravane.gate.records import Records
from eravane.gate.versions import Version, VersionScores
from tests.gate.cases import LAG, outcomes, pool, through_disk

CONFIG = GateConfig(warmup=12, rehearsal=0, experts=("ridges", "regimes"))
MODELS, RENEWED, ROWS = 6, 31, 500


def swapped(learner, history, eras, every=None):
    """Drive over eras; from RENEWED on the models' places are reversed, and a version says so. Returns the choices."""
    z_MR = np.random.default_rng(1).standard_normal((MODELS, ROWS)).astype(np.float16)
    found, seen = [], 0
    for era in eras:
        if not learner.versions.kept:
            learner.versions.add(Version(1, {0: z_MR}))
        if era == RENEWED:
            learner.versions.add(Version(RENEWED, {0: z_MR[::-1].copy()}))
        while history[seen].era <= era - LAG:
            learner.observe(history[seen])
            learner.versions.score(
                history[seen].era, VersionScores(learner.versions.at(history[seen].era)[:1], history[seen].c_M[None])
            )
            seen += 1
        learner.learn(era)
        now, everyone = history[era - 1], np.ones(MODELS, dtype=bool)
        learner.decide(era, now.facts)
        learner.weigh(era, now.facts, everyone, now.C_MM, now.dispersion_M)
        found.append(learner.expert_weights(era))
        learner = every(learner) if every else learner
    return found, learner


@pytest.mark.parametrize("expert", [*RIDGES, "regimes"])
def test_histories_follow_a_model_to_its_new_place_at_once(expert):
    history = outcomes(eras=40)
    found, _ = swapped(MetaLearner(CONFIG, pool(), lag=LAG, seed=0), history, range(20, 33))
    before, after = found[RENEWED - 1 - 20][expert], found[RENEWED - 20][expert]
    good = slice(0, MODELS // 2)
    assert before[good].sum() > 0.7
    assert after[::-1][good].sum() > 0.7


def test_histories_that_grow_era_by_era_are_those_that_are_made_at_once():
    history = outcomes(eras=45)
    straight, _ = swapped(MetaLearner(CONFIG, pool(), lag=LAG, seed=0), history, range(20, 40))
    broken, _ = swapped(MetaLearner(CONFIG, pool(), lag=LAG, seed=0), history, range(20, 40), every=through_disk)
    for one, other in zip(straight, broken, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def best(c_M, C_MM):
    """Weights that are not negative and earn most, by least squares on a root of C."""
    root_MM = np.linalg.cholesky(C_MM + STEADY * np.eye(MODELS))
    weights_M, _ = nnls(root_MM.T, np.linalg.solve(root_MM, c_M))
    return weights_M / weights_M.sum()


def test_ridges_invert_the_agreement_of_this_era_where_its_models_predicted():
    history = outcomes(eras=40)
    root = np.random.default_rng(2).standard_normal((MODELS, 12))
    today_MM = root @ root.T / 12
    history[29] = replace(history[29], C_MM=today_MM)
    found, learner = swapped(MetaLearner(CONFIG, pool(), lag=LAG, seed=0), history, range(20, 31))
    c_EM, usual_MM = np.stack([o.c_M for o in history[: 30 - LAG]]), 0.3 + 0.7 * np.eye(MODELS)
    # Errors of histories are those of the present models: by how these agree on reference rows.
    z_MR = learner.versions.kept[-1].z[0].astype(np.float64)
    present_MM, rest_EM = z_MR @ z_MR.T / ROWS, c_EM - c_EM.mean(axis=0)
    noise = np.mean([r @ np.linalg.solve(present_MM + STABLE * np.eye(MODELS), r) / MODELS for r in rest_EM])
    share_E = 0.5 ** (np.arange(len(c_EM))[::-1] / RIDGES["ridge"])
    share_E /= share_E.sum()
    expected_M = shrunk(share_E @ c_EM, present_MM, noise * (share_E**2).sum())
    np.testing.assert_allclose(found[-1]["ridge"], best(expected_M, today_MM), atol=1e-6)
    open_M = np.array([True] * 5 + [False])
    learner.weigh(30, history[29].facts, open_M, np.where(open_M & open_M[:, None], today_MM, np.nan), np.ones(MODELS))
    mixed_MM = np.where(open_M & open_M[:, None], today_MM, usual_MM)
    np.testing.assert_allclose(learner.expert_weights(30)["ridge"], best(expected_M, mixed_MM), atol=1e-6)


def test_an_absent_model_has_its_mean_so_far_in_the_history():
    history = outcomes(eras=30)
    blank_M = np.arange(MODELS) == 2
    history[9] = replace(history[9], c_M=np.where(blank_M, np.nan, history[9].c_M))
    resolved, network = History(MODELS), Network(CONFIG, pool(), LAG, 0, "cpu", "corr")
    for outcome in history[:20]:
        resolved.append(outcome)
    paid_EM = Cells(resolved, Records(MODELS, "corr", 4), network, PAID_BY["corr"], LAG, 4).paid(20)
    assert paid_EM[9, 2] == pytest.approx(np.mean([o.c_M[2] for o in history[:9]]))
    assert np.array_equal(paid_EM[10], history[10].c_M)
