"""What can be known of a made world: the oracle where nothing is hidden, and never more than resolved labels say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.meta import LAG, scores
from benchmarks.meta_knowable import Truth, condensed, knowable, regimes_known
from benchmarks.meta_moments import moment_world
from benchmarks.meta_worlds import Planted, oracle_weights, simulated_history

BLOCKS, MODELS = 3, 4


def plain_world(
    eras: int, *, shown: bool, noise: float, leave: float = 0.02, returns: float = 0.0, seed: int = 0
) -> Planted:
    """Three regimes that pay one block each, four models, one version; what is read is x itself plus noise."""
    rng = np.random.default_rng(seed)
    moves_E = rng.random(eras) < leave
    regime_E = np.cumsum(moves_E * rng.integers(1, 3, eras)) % 3
    pay_RG = np.eye(3) + 0.1
    loads_MG = np.abs(rng.standard_normal((MODELS, BLOCKS))) * 0.02
    C_MM = 0.3 + 0.7 * np.eye(MODELS)
    weeks_TG = rng.standard_normal((eras + 3, BLOCKS))
    overlap_EG = sum(weeks_TG[i : eras + i] for i in range(4)) / 2
    x_EG = pay_RG[regime_E]
    plain = simulated_history(0, eras=eras, models=MODELS)
    outcomes = [replace(o, c_M=loads_MG @ x_G, C_MM=C_MM) for o, x_G in zip(plain.outcomes, x_EG, strict=True)]
    reads_GG = np.eye(BLOCKS) / max(noise, 1e-3)
    truth = Truth(
        pay_RG=pay_RG,
        regime_E=regime_E,
        leave_A=np.array([leave]),
        shown=shown,
        returns=returns,
        drift=0.0,
        keep=1.0,
        white=0.0,
        loads_EMG=np.tile(loads_MG, (eras, 1, 1)),
        seen_EG=x_EG @ reads_GG + (overlap_EG if noise else 0.0),
        reads_EGG=np.tile(reads_GG, (eras, 1, 1)),
        renewed_E=np.zeros(eras, dtype=bool),
    )
    return Planted(outcomes, plain.models, regime_E, truths={"scores": truth})


def test_where_facts_show_the_regime_and_nothing_is_noise_it_is_the_oracle():
    world = plain_world(200, shown=True, noise=0.0)
    known_EM = knowable(world.outcomes, world.truths["scores"], LAG)
    known_E, oracle_E = (scores(world.outcomes, w_EM)[LAG:] for w_EM in (known_EM, oracle_weights(world)))
    np.testing.assert_allclose(known_E, oracle_E, rtol=0, atol=1e-5)


def test_what_regimes_pay_is_learnt_where_it_shows():
    world = plain_world(400, shown=True, noise=0.5)
    learnt, oracle = (
        scores(world.outcomes, w_EM)[200:]
        for w_EM in (knowable(world.outcomes, world.truths["scores"], LAG, learnt=True), oracle_weights(world))
    )
    assert learnt.mean() > 0.97 * oracle.mean()
    first_M = knowable(world.outcomes, world.truths["scores"], LAG, learnt=True)[LAG - 1]
    assert scores(world.outcomes[LAG - 1 : LAG], first_M[None])[0] < oracle.max()


def test_the_filter_follows_the_chain_where_nothing_else_is_uncertain():
    """Labels without noise: the regime of the newest resolved era is known, and the chain goes on for LAG eras."""
    leave = 0.05
    world = plain_world(150, shown=False, noise=0.0, leave=leave)
    truth = world.truths["scores"]
    chain_RR = np.full((3, 3), leave / 2) + (1 - 1.5 * leave) * np.eye(3)
    ahead_RR = np.linalg.matrix_power(chain_RR, LAG)
    root_MM = np.linalg.cholesky(world.outcomes[0].C_MM + 1e-6 * np.eye(MODELS))
    known_EM = knowable(world.outcomes, truth, LAG)
    for e in range(20, 150):
        c_M = truth.loads_EMG[e] @ (ahead_RR[world.regime_E[e - LAG]] @ truth.pay_RG)
        best = np.linalg.norm(np.linalg.solve(root_MM, c_M))
        if (np.linalg.solve(root_MM @ root_MM.T, c_M) > 0).all():
            assert known_EM[e] @ c_M / np.linalg.norm(root_MM.T @ known_EM[e]) == pytest.approx(best, rel=1e-4)


def first_eras(truth: Truth, eras: int) -> Truth:
    by_era = ("regime_E", "loads_EMG", "seen_EG", "reads_EGG", "renewed_E")
    return replace(truth, **{name: getattr(truth, name)[:eras] for name in by_era})


made = cache(moment_world)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("kind", ["hidden", "visible"])
def test_no_label_that_is_not_resolved_is_read(kind, learnt):
    world, at, eras = made(kind, 0), 200, 260
    outcomes = world.outcomes[:eras]
    for truth in (first_eras(truth, eras) for truth in world.truths.values()):
        known_EM = knowable(outcomes, truth, LAG, learnt)
        seen_EG, regime_E = truth.seen_EG.copy(), truth.regime_E.copy()
        seen_EG[at - LAG + 1 :] += 5.0
        if not truth.shown:
            regime_E[at - LAG + 1 :] = (regime_E[at - LAG + 1 :] + 1) % len(truth.pay_RG)
        other_EM = knowable(outcomes, replace(truth, seen_EG=seen_EG, regime_E=regime_E), LAG, learnt)
        np.testing.assert_array_equal(known_EM[: at + 1], other_EM[: at + 1])
        assert not np.allclose(known_EM[at + 1 :], other_EM[at + 1 :])


@pytest.mark.parametrize("shown", [False, True])
def test_known_regimes_are_read_where_they_are_resolved_or_show_and_what_they_pay_is_learnt(shown):
    world = plain_world(400, shown=shown, noise=0.0)
    known_EM = regimes_known(world.outcomes, (), {}, world.truths["scores"], LAG)
    known_E, oracle_E = (scores(world.outcomes, w_EM)[200:] for w_EM in (known_EM, oracle_weights(world)))
    late_E = world.regime_E[200 - LAG : -LAG] == world.regime_E[200:]
    assert known_E[late_E].mean() > 0.93 * oracle_E[late_E].mean()
    assert (known_E[~late_E].mean() > 0.93 * oracle_E[~late_E].mean()) == shown


@pytest.mark.parametrize("kind", ["hidden", "visible"])
def test_known_regimes_read_no_label_that_is_not_resolved(kind):
    world, at, eras = made(kind, 0), 200, 260
    outcomes, truth = list(world.outcomes[:eras]), first_eras(world.truths["scores"], eras)
    known_EM = regimes_known(outcomes, world.versions, world.version_scores, truth, LAG)
    later = {o.era for o in outcomes[at - LAG + 1 :]}
    others = [replace(o, c_M=o.c_M[::-1].copy()) if o.era in later else o for o in outcomes]
    paid = {e: replace(s, paid_KM=-s.paid_KM) if e in later else s for e, s in world.version_scores.items()}
    regime_E = truth.regime_E.copy()
    if not truth.shown:
        regime_E[at - LAG + 1 :] = (regime_E[at - LAG + 1 :] + 1) % len(truth.pay_RG)
    other_EM = regimes_known(others, world.versions, paid, replace(truth, regime_E=regime_E), LAG)
    np.testing.assert_array_equal(known_EM[: at + 1], other_EM[: at + 1])
    assert not np.allclose(known_EM[at + 1 :], other_EM[at + 1 :])


def test_scores_are_condensed_without_loss():
    """The posterior of x by generalised least squares on scores and on what they are condensed to is the same."""
    rng = np.random.default_rng(1)
    loads_KG, root_KK = rng.standard_normal((7, 3)), rng.standard_normal((7, 7))
    C_KK, rows = root_KK @ root_KK.T, 50
    c_K = rng.standard_normal(7)
    z_G, reads_GG = condensed(c_K, loads_KG, C_KK, rows)
    np.testing.assert_allclose(reads_GG.T @ reads_GG, rows * loads_KG.T @ np.linalg.solve(C_KK, loads_KG), rtol=1e-8)
    np.testing.assert_allclose(reads_GG.T @ z_G, rows * loads_KG.T @ np.linalg.solve(C_KK, c_K), rtol=1e-7)


@pytest.mark.parametrize("kind", ["hidden", "visible", "many models"])
def test_a_world_is_what_its_truth_says(kind):
    """Residuals of what is read have the variance and the autocorrelation that the truth gives them."""
    world = moment_world(kind, 3)
    for truth in world.truths.values():
        rest_EG = truth.seen_EG - np.einsum("egh,eh->eg", truth.reads_EGG, truth.pay_RG[truth.regime_E])
        power_EG = np.einsum("egh,egh->eg", truth.reads_EGG, truth.reads_EGG)
        z_EG = rest_EG / np.sqrt(1 + (truth.returns**2 + truth.drift**2) * power_EG)
        assert (z_EG**2).mean() == pytest.approx(1, abs=0.15)
        far, near = ((z_EG[k:] * z_EG[:-k]).mean() for k in (4, 1))
        assert near - far == pytest.approx(0.75 * (1 - far), abs=0.1)
