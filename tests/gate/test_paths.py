"""Paths of regimes against sums over all of them by dense normal distributions, and on series whose regime is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eravane.core.errors import LayoutError
from eravane.core.layout import Layout
from eravane.gate import paths as module
from eravane.gate.directions import Reading
from eravane.gate.paths import (
    BY_SPREAD,
    DRIFT,
    KEEP,
    KEEP_FACTS,
    LEAVE,
    MOST_DRIFT,
    OWN,
    OWN_FACTS,
    REGIMES,
    USUAL,
    WHITE,
    Facts,
    Paths,
    drifting,
)

NO_FACTS = np.zeros(0)


def no_facts(eras):
    return Facts(np.zeros((eras, 0)), NO_FACTS, 0.0, 0.0)


def every_path(eras):
    """Paths that start in regime 0 and call new regimes by the next number, with their log probabilities."""
    for path in itertools.product(range(REGIMES), repeat=eras):
        log, used, fits = 0.0, 1, path[0] == 0
        for before, now in itertools.pairwise(path):
            fits &= now <= used
            new = REGIMES - used if now == used else 1
            log += np.log(1 - LEAVE if now == before else LEAVE / (REGIMES - 1) * new)
            used = max(used, now + 1)
        if fits:
            yield path, log


def expected(paths, steps):
    """Expected c along the directions, over all regimes."""
    state_R, u_RK, *_ = paths.foreseen(steps)
    return state_R @ u_RK


@pytest.mark.parametrize(("horizon", "slow"), [(1, 0.0), (3, 0.98), (4, 0.6)])
def test_forecasts_are_means_over_all_paths(monkeypatch, horizon, slow):
    """Every path's joint normal distribution of all eras and of the next one, written out; some facts are missing."""
    monkeypatch.setattr(module, "KEPT", 10_000)
    monkeypatch.setattr(module, "UNLIKELY", np.inf)
    eras, steps, rng = 5, 6, np.random.default_rng(horizon)
    noise_K, usual_K = np.array([0.5, 2.0, 1.0]), np.array([0.1, -0.3, 0.0])
    power_K, share_K = np.array([1.0, 0.3, 5.0]), np.array([0.3, 1.0, 0.7])  # the last one is wide
    strength_K = np.array([0.65, 0.65, 5.0]) ** BY_SPREAD
    strength_K /= strength_K.mean()
    u_EK = rng.standard_normal((eras, 3)) * np.sqrt(noise_K)
    z_EK, mean_K = u_EK / np.sqrt(noise_K), usual_K / np.sqrt(noise_K)
    apart_TT = np.abs(np.subtract.outer([*range(eras), eras - 1 + steps], [*range(eras), eras - 1 + steps]))
    shared_TT = USUAL + DRIFT * KEEP**apart_TT
    label_EE = ((1 - WHITE) * np.maximum(0, 1 - apart_TT / horizon) + WHITE * (apart_TT == 0))[:eras, :eras]
    chain_RR = np.full((REGIMES, REGIMES), LEAVE / (REGIMES - 1))
    np.fill_diagonal(chain_RR, 1 - LEAVE)
    ahead_RR = np.linalg.matrix_power(chain_RR, steps)
    width_F, trust, facts_EF = np.array([0.5, 2.0, 1.0]), 0.8, rng.standard_normal((eras, 3))
    facts_EF[:2, 0] = facts_EF[1, 1:] = facts_EF[3, 1] = np.nan  # one begins late, two have a gap, then one of them
    usual_F = np.nanmean(facts_EF[:3], axis=0)
    drift_TT = slow * KEEP_FACTS**apart_TT
    logs, forecasts, facts = [], [], []
    for path, log in every_path(eras):
        same_EE = np.equal.outer(path, path)
        own_RE = OWN * (np.arange(REGIMES)[:, None] == np.array(path))
        forecast_K = mean_K.copy()
        for k, strength in enumerate(strength_K):
            V_EE = strength * (shared_TT[:eras, :eras] + OWN * same_EE) + label_EE
            solved_E = np.linalg.solve(V_EE, z_EK[:, k] - mean_K[k])
            log -= share_K[k] * 0.5 * ((z_EK[:, k] - mean_K[k]) @ solved_E + np.linalg.slogdet(V_EE)[1])
            forecast_K[k] += strength * (shared_TT[-1, :eras] + ahead_RR[path[-1]] @ own_RE) @ solved_E
        facts_F = usual_F.copy()
        for f, fact_E in enumerate(facts_EF.T):
            known_E = np.isfinite(fact_E)
            V_EE = OWN_FACTS * same_EE + drift_TT[:eras, :eras] + (1 - slow) * np.eye(eras)
            rest_E, V_EE = (fact_E[known_E] - usual_F[f]) / width_F[f], V_EE[known_E][:, known_E]
            solved_E = np.linalg.solve(V_EE, rest_E)
            log -= trust * 0.5 * (rest_E @ solved_E + np.linalg.slogdet(V_EE)[1])
            ahead_E = drift_TT[-1, :eras] + ahead_RR[path[-1]] @ own_RE / OWN * OWN_FACTS
            facts_F[f] += width_F[f] * (ahead_E[known_E] @ solved_E)
        logs.append(log)
        forecasts.append(forecast_K)
        facts.append(facts_F)
    share = np.exp(np.array(logs) - max(logs))
    paths = Paths(horizon)
    paths.fit(Reading(u_EK[:3], usual_K, noise_K, power_K), share_K, Facts(facts_EF[:3], width_F, slow, trust))
    for u_K, facts_F in zip(u_EK[3:], facts_EF[3:], strict=True):
        paths.add(u_K, facts_F)
    state_R, _, facts_RF, ahead_F = paths.foreseen(steps)
    np.testing.assert_allclose(state_R @ facts_RF, (share / share.sum()) @ np.array(facts), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ahead_F, width_F * np.sqrt(1 - slow * KEEP_FACTS ** (2 * steps)), rtol=1e-12)
    expected_K = (share / share.sum()) @ np.array(forecasts) * np.sqrt(noise_K)
    np.testing.assert_allclose(expected(paths, steps), expected_K, rtol=1e-8, atol=1e-12)


def test_regimes_of_a_short_history_of_many_models_are_found():
    """200 eras of 40 directions, three regimes: the newest regime is called what it was called before."""
    rng = np.random.default_rng(0)
    regime_E = np.repeat([0, 1, 0, 2, 1, 2], [40, 30, 35, 30, 40, 25])
    pay_RK = 0.4 * rng.standard_normal((3, 40))
    weeks_TK = rng.standard_normal((len(regime_E) + 3, 40))
    u_EK = pay_RK[regime_E] + sum(weeks_TK[i : len(regime_E) + i] for i in range(4)) / 2
    paths, found = Paths(4), []
    first = Reading(u_EK[:1], np.zeros(40), np.ones(40), np.ones(40))
    paths.fit(first, np.ones(40), no_facts(1))
    for era in range(1, len(u_EK)):
        paths.add(u_EK[era], NO_FACTS)
        found.append(paths.arrays()["regime"][0])
    assert (np.array(found) == regime_E[1:]).mean() > 0.85
    error = expected(paths, 6) - pay_RK[2]
    assert (error**2).mean() < 0.6 * ((u_EK[regime_E == 2].mean(axis=0) - pay_RK[2]) ** 2).mean() + 0.02


def test_facts_tell_the_regime_of_an_era_that_is_not_resolved_and_of_those_that_are():
    """Regimes that change with every other era: facts sort the eras, so that the means are those of regimes."""
    rng = np.random.default_rng(5)
    regime_E = rng.integers(3, size=400)
    pay_RK, sign_RF = 0.5 * rng.standard_normal((3, 10)), np.array([[0.0, 3.0], [3.0, 0.0], [-3.0, -3.0]])
    u_EK = pay_RK[regime_E] + rng.standard_normal((400, 10))
    facts_EF = sign_RF[regime_E] + rng.standard_normal((400, 2))
    facts_EF[::7, 0] = np.nan
    paths = Paths(1)
    reading = Reading(u_EK, np.zeros(10), np.ones(10), np.ones(10))
    paths.fit(reading, np.ones(10), Facts(facts_EF, np.ones(2), 0.0, 1.0))
    state_R, u_RK, facts_RF, _ = paths.foreseen(6)
    assert state_R.sum() == pytest.approx(1)
    for regime in range(3):
        nearest = ((facts_RF - sign_RF[regime]) ** 2).sum(axis=1).argmin()
        assert np.abs(facts_RF[nearest] - sign_RF[regime]).max() < 0.8
        assert np.corrcoef(u_RK[nearest], pay_RK[regime])[0, 1] > 0.8


def test_facts_that_drift_do_not_look_like_new_regimes():
    """Two regimes by turns, and facts that move slowly beside: with a drift the eras are sorted by regime alone."""
    rng, found = np.random.default_rng(2), []
    regime_E = np.repeat(np.arange(10) % 2, 30)
    pay_RK, sign_RF = 0.5 * rng.standard_normal((2, 10)), np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])
    u_EK, slow_EF = pay_RK[regime_E] + rng.standard_normal((300, 10)), np.zeros((300, 3))
    for era in range(1, 300):
        slow_EF[era] = 0.97 * slow_EF[era - 1] + np.sqrt(1 - 0.97**2) * rng.standard_normal(3)
    reading = Reading(u_EK, np.zeros(10), np.ones(10), np.ones(10))
    for slow in (0.0, 0.95):
        paths = Paths(1)
        paths.fit(reading, np.ones(10), Facts(sign_RF[regime_E] + slow_EF, np.ones(3), slow, 1.0))
        found.append(int(paths.arrays()["used"][0]))
    assert found == [REGIMES, 2]


def test_paths_go_on_after_the_eras_they_were_fitted_to():
    rng = np.random.default_rng(3)
    u_EK, usual_K, noise_K = rng.standard_normal((60, 5)), rng.standard_normal(5), rng.uniform(0.5, 2, 5)
    whole, parts, reading = Paths(4), Paths(4), Reading(u_EK, usual_K, noise_K, rng.uniform(0.1, 3, 5))
    whole.fit(reading, np.ones(5), no_facts(60))
    parts.fit(reading._replace(u_EK=u_EK[:25]), np.ones(5), no_facts(25))
    for u_K in u_EK[25:]:
        parts.add(u_K, NO_FACTS)
    np.testing.assert_array_equal(expected(whole, 6), expected(parts, 6))


def test_paths_that_come_back_from_disk_go_on_alike():
    rng = np.random.default_rng(4)
    u_EK, facts_EF = rng.standard_normal((60, 5)), rng.standard_normal((60, 2))
    facts_EF[[7, 30, 41, 41], [0, 1, 0, 1]] = np.nan
    kept, back = Paths(4), Paths(4)
    reading = Reading(u_EK[:25], np.zeros(5), np.ones(5), rng.uniform(0.1, 3, 5))
    kept.fit(reading, np.ones(5), Facts(facts_EF[:25], np.ones(2), 0.5, 1.0))
    back.load(Layout({f"p.{name}": array for name, array in kept.arrays().items()}), "p.")
    for u_K, facts_F in zip(u_EK[25:], facts_EF[25:], strict=True):
        kept.add(u_K, facts_F)
        back.add(u_K, facts_F)
    for left, right in zip(kept.foreseen(6), back.foreseen(6), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("name", "value"), [("kind", np.array([0, 2, 1])), ("facts", np.array([4]))])
def test_kinds_of_directions_that_cannot_be_are_refused(name, value):
    paths = Paths(2)
    reading = Reading(np.ones((4, 3)), np.zeros(3), np.ones(3), np.arange(3.0))
    paths.fit(reading, np.ones(3), no_facts(4))
    with pytest.raises(LayoutError, match="kind"):
        Paths(2).load(Layout({f"p.{key}": array for key, array in (paths.arrays() | {name: value}).items()}), "p.")


@pytest.mark.parametrize("slow", [0.0, 0.4, 0.9])
def test_the_share_of_facts_that_drifts_is_found(slow):
    """Ten facts over 3,000 eras, some eras without: a drift and noise of known sizes."""
    rng, keep, drift_EF = np.random.default_rng(1), KEEP_FACTS, np.zeros((3_000, 10))
    drift_EF[0] = rng.standard_normal(10)
    for era in range(1, len(drift_EF)):
        drift_EF[era] = keep * drift_EF[era - 1] + np.sqrt(1 - keep**2) * rng.standard_normal(10)
    rest_EF = np.sqrt(slow) * drift_EF + np.sqrt(1 - slow) * rng.standard_normal(drift_EF.shape)
    rest_EF[rng.random(rest_EF.shape) < 0.2] = np.nan
    assert drifting(rest_EF) == pytest.approx(slow, abs=0.03)


@pytest.mark.parametrize("rest_EF", [np.zeros((5, 0)), np.zeros((5, 2)), np.full((5, 2), np.nan), np.ones((1, 2))])
def test_facts_without_anything_to_compare_do_not_drift(rest_EF):
    assert drifting(rest_EF) == 0.0


def test_of_facts_that_never_move_some_is_noise():
    assert drifting(np.ones((50, 2))) == MOST_DRIFT
