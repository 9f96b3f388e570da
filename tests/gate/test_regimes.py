"""Hidden Markov regimes against sums over all paths, and on series whose regime is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from safetensors.numpy import load, save

from eravane.core.errors import LayoutError
from eravane.core.layout import Layout
from eravane.gate import regimes as module
from eravane.gate.directions import directions, steady
from eravane.gate.experts import STABLE
from eravane.gate.portable import foresee
from eravane.gate.regimes import CELLS, OUTSIDE, STATES, Bank, Regimes, _likelihood, _passes

MODELS, HORIZON, LAG = 5, 4, 6
C_MM = 0.3 + 0.7 * np.eye(MODELS)


def bank_of(states, seed=0, models=2, facts=1):
    """One member with random parameters."""
    rng = np.random.default_rng(seed)
    mean_BSK = np.zeros((1, module.MOST, models))
    mean_BSK[0, :states] = rng.standard_normal((states, models))
    chain_BSS = np.eye(module.MOST)[None].copy()
    chain_BSS[0, :states, :states] = rng.dirichlet(np.ones(states), states)
    return Bank(
        states_B=np.array([states]),
        view_B=np.array([OUTSIDE]),
        to_MK=np.eye(models),
        back_KM=np.eye(models),
        mean_BSK=mean_BSK,
        noise_BK=rng.uniform(0.5, 2.0, (1, models)),
        chain_BSS=chain_BSS,
        fact_BSK=rng.standard_normal((1, module.MOST, facts)),
        width_BK=np.full((1, facts), 0.7),
        trust_B=np.array([0.8]),
        slope_F=np.zeros(0),
        scale=np.ones(1),
    )


def test_states_and_moves_are_sums_over_all_paths():
    states, eras = 3, 5
    bank, rng = bank_of(states), np.random.default_rng(1)
    c_EM, facts_EK = rng.standard_normal((eras, 2)), rng.standard_normal((eras, 1))
    facts_EK[2] = np.nan
    state_BES, moves_BSS, newest_BS = _passes(_likelihood(bank, c_EM, {OUTSIDE: facts_EK}, HORIZON), bank)
    total, state_ES, moves_SS, newest_S = 0.0, np.zeros((eras, states)), np.zeros((states, states)), np.zeros(states)
    for path in itertools.product(range(states), repeat=eras):
        chance = 1 / states
        for e, s in enumerate(path):
            miss_K = c_EM[e] - bank.mean_BSK[0, s]
            log = -0.5 * (miss_K**2 / bank.noise_BK[0]).sum() * module.OVERLAPPED / HORIZON
            if np.isfinite(facts_EK[e, 0]):
                log -= 0.5 * 0.8 * ((facts_EK[e, 0] - bank.fact_BSK[0, s, 0]) / 0.7) ** 2
            chance *= np.exp(log) * (bank.chain_BSS[0, path[e - 1], s] if e else 1.0)
        # The first era is a step of the chain from evenly likely states, as every other one.
        chance *= bank.chain_BSS[0, :states, path[0]].sum()
        total += chance
        for e, s in enumerate(path):
            state_ES[e, s] += chance
        for before, after in itertools.pairwise(path):
            moves_SS[before, after] += chance
        newest_S[path[-1]] += chance
    np.testing.assert_allclose(state_BES[0, :, :states], state_ES / total, atol=1e-10)
    np.testing.assert_allclose(moves_BSS[0, :states, :states], moves_SS / total, atol=1e-10)
    np.testing.assert_allclose(newest_BS[0, :states], newest_S / total, atol=1e-10)
    assert (state_BES[0, :, states:] == 0).all()


def series(seed, eras=500, stay=40, size=0.02, noise=0.015):
    """Three regimes, c of five models around means of their own, labels that overlap over four eras."""
    rng = np.random.default_rng(seed)
    mean_RM = 0.02 + size * rng.standard_normal((3, MODELS))
    regime_E = np.zeros(eras, dtype=int)
    for e in range(1, eras):
        regime_E[e] = regime_E[e - 1] if rng.random() > 1 / stay else rng.integers(3)
    weekly = rng.standard_normal((eras + 3, MODELS)) @ np.linalg.cholesky(C_MM).T * noise
    c_EM = mean_RM[regime_E] + sum(weekly[i : eras + i] for i in range(4)) / 2
    return regime_E, mean_RM, c_EM


def errors(c_EM, mean_EM, outside_ED, own_EMF=None, first=300, every=50):
    """Mean squared errors of the regimes' forecasts of the true means, of the plain mean's, and of the members'."""
    own_EMF = np.zeros((len(c_EM), MODELS, 0)) if own_EMF is None else own_EMF
    regimes, rows = Regimes(MODELS, HORIZON), []
    for era in range(first, len(c_EM)):
        known = era - LAG + 1
        if (era - first) % every == 0:
            regimes.fit(c_EM[:known], own_EMF[:known], outside_ED[:known], C_MM)
        for position in range(regimes.known, known):
            regimes.add(c_EM[position], own_EMF[position], outside_ED[position])
        expected_M, answers_AM = regimes.forecasts(LAG - 1 + 1, own_EMF[era], outside_ED[era])
        regimes.settle(answers_AM, c_EM[era])
        true_M = mean_EM[era]
        rows.append([((expected_M - true_M) ** 2).mean(), ((c_EM[:known].mean(axis=0) - true_M) ** 2).mean()])
    return np.mean(rows, axis=0)


def test_regimes_are_found_where_there_are_some_and_cost_nothing_where_there_are_none():
    nothing = np.zeros((500, 0))
    found, plain = np.mean(
        [errors(c_EM, mean_RM[regime_E], nothing) for regime_E, mean_RM, c_EM in map(series, range(3))], axis=0
    )
    assert found < 0.6 * plain
    calm, still = np.mean(
        [
            errors(c_EM, mean_RM[regime_E], nothing)
            for regime_E, mean_RM, c_EM in (series(s, size=0.0) for s in range(3))
        ],
        axis=0,
    )
    # A share of a noisy mean over the newest eras is expected to go on: an error of .003, a seventh of the models' c.
    assert calm < still + 9e-6


def test_what_the_states_leave_over_is_expected_to_go_on():
    rng = np.random.default_rng(12)
    drift_EM = np.zeros((500, MODELS))
    for era in range(1, 500):
        drift_EM[era] = 0.5 ** (1 / 30) * drift_EM[era - 1] + 0.004 * rng.standard_normal(MODELS)
    weekly = 0.01 * rng.standard_normal((503, MODELS))
    c_EM = 0.02 + drift_EM + sum(weekly[i : i + 500] for i in range(4)) / 2
    found, plain = errors(c_EM, 0.02 + drift_EM, np.zeros((500, 0)))
    assert found < 0.8 * plain
    regimes = Regimes(MODELS, HORIZON)
    regimes.fit(c_EM[:100], np.zeros((100, MODELS, 0)), np.zeros((100, 0)), C_MM)
    for position in range(100, 140):
        regimes.add(c_EM[position], np.zeros((MODELS, 0)), np.zeros(0))
    bank = regimes.numbers(LAG)
    share_E = 0.5 ** (np.arange(139, -1, -1) / 16)
    mean_M = bank["mean_BSK"][0, 0] @ bank["back_KM"]
    rest_M = (share_E / share_E.sum()) @ (c_EM[:140] - mean_M)
    answers_AM = regimes.forecasts(LAG, np.zeros((MODELS, 0)), np.zeros(0))[1]
    np.testing.assert_allclose(answers_AM[0], mean_M + module.GOES_ON * rest_M, rtol=1e-9)


@pytest.mark.parametrize("kind", ["outside", "cells"])
def test_a_fact_that_tells_the_regime_is_found_and_a_useless_one_costs_nothing(kind):
    rng = np.random.default_rng(9)
    regime_E, mean_RM, c_EM = series(4, stay=8)
    nothing, true_EM = np.zeros((500, 0)), mean_RM[regime_E]
    if kind == "outside":
        informative, useless = (
            regime_E[:, None] - 1.0 + 0.2 * rng.standard_normal((500, 1)),
            rng.standard_normal((500, 1)),
        )
        informative[::17] = np.nan
        arguments = [(nothing, None), (informative, None), (useless, None)]
    else:
        shown = (true_EM - true_EM.mean(axis=1, keepdims=True)) / 0.02 + 0.5 * rng.standard_normal((500, MODELS))
        useless_EMF = rng.standard_normal((500, MODELS, 1))
        arguments = [(nothing, None), (nothing, shown[:, :, None]), (nothing, useless_EMF)]
    without, with_told, with_useless = (errors(c_EM, true_EM, out, own)[0] for out, own in arguments)
    assert with_told < 0.5 * without
    assert with_useless < 1.1 * without


def test_facts_that_tell_the_regime_are_found_where_they_drift_beside():
    """Rates and volatility stay for months; what a regime adds to them is seen all the same."""
    rng, told, useless = np.random.default_rng(9), [], []
    for seed in range(4, 7):
        regime_E, mean_RM, c_EM = series(seed, stay=20)
        slow_ED = np.zeros((500, 3))
        for era in range(1, 500):
            slow_ED[era] = 0.97 * slow_ED[era - 1] + np.sqrt(1 - 0.97**2) * rng.standard_normal(3)
        shown_ED = 2 * np.eye(3)[regime_E] + slow_ED
        shown_ED[::17] = np.nan
        facts = (np.zeros((500, 0)), shown_ED, slow_ED)
        without, with_shown, with_slow = (errors(c_EM, mean_RM[regime_E], facts_ED)[0] for facts_ED in facts)
        told.append(with_shown / without)
        useless.append(with_slow / without)
    assert np.mean(told) < 0.5  # .7 where neighbouring eras count as independent
    assert np.mean(useless) < 1.1


def test_a_fact_that_begins_to_move_after_the_first_fit_is_read():
    """How far facts count is found anew at every fit."""
    rng = np.random.default_rng(9)
    regime_E, _, c_EM = series(4, stay=8)
    outside_ED, own_EMF = regime_E[:, None] - 1.0 + 0.2 * rng.standard_normal((500, 1)), np.zeros((500, MODELS, 0))
    outside_ED[:60] = 0.0
    regimes = Regimes(MODELS, HORIZON)
    for known in (60, 100, 300, 500):
        regimes.fit(c_EM[:known], own_EMF[:known], outside_ED[:known], C_MM)
    high_M, low_M = (regimes.forecasts(LAG, own_EMF[0], np.array([value]))[0] for value in (1.0, -1.0))
    assert np.abs(high_M - low_M).max() > 0.01


def test_paths_of_another_number_of_models_are_refused():
    rng = np.random.default_rng(5)
    regimes = Regimes(MODELS, HORIZON)
    facts_ED = rng.standard_normal((60, 2))
    regimes.fit(0.02 * rng.standard_normal((60, MODELS)), np.zeros((60, MODELS, 0)), facts_ED, C_MM)
    arrays = regimes.arrays() | {f"regimes.paths.{OUTSIDE}.facts": np.array([1])}
    with pytest.raises(LayoutError, match=f"paths.{OUTSIDE}.facts"):
        Regimes(MODELS, HORIZON).load(Layout(arrays))


GAPS = {
    "none": (slice(0, 0), 0),
    "all eras": (slice(None), 0),
    "begins late": (slice(0, 30), 0),
    "begins after the fit": (slice(0, 45), 0),
    "ends": (slice(40, None), 1),
    "every fact": (slice(None), slice(None)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [0.0, 1e-9, 1.0, 1e9])
@pytest.mark.parametrize("gap", GAPS)
def test_facts_of_every_size_and_with_every_gap_are_survived(gap, unit):
    rng, own = np.random.default_rng(3), np.zeros((MODELS, 0))
    outside_ED, c_EM = unit * rng.standard_normal((80, 2)), 0.02 * rng.standard_normal((80, MODELS))
    outside_ED[GAPS[gap]] = np.nan
    regimes, back = Regimes(MODELS, HORIZON), Regimes(MODELS, HORIZON)
    regimes.fit(c_EM[:41], np.zeros((41, MODELS, 0)), outside_ED[:41], C_MM)
    for position in range(41, 80):
        regimes.add(c_EM[position], own, outside_ED[position])
    expected_M, answers_AM = regimes.forecasts(LAG, own, outside_ED[-1])
    assert np.isfinite(answers_AM).all()
    back.load(Layout(regimes.arrays()))
    np.testing.assert_array_equal(back.forecasts(LAG, own, outside_ED[-1])[0], expected_M)


def test_one_history_twice_is_that_history():
    _, _, c_EM = series(8, eras=120)
    nothing = np.zeros((120, MODELS, 0)), np.zeros((120, 0))
    alone, twice = Regimes(MODELS, HORIZON), Regimes(MODELS, HORIZON)
    alone.fit(c_EM[:100], nothing[0][:100], nothing[1][:100], C_MM)
    twice.fit(c_EM[:100], nothing[0][:100], nothing[1][:100], C_MM, (c_EM[:100], C_MM))
    for era in range(100, 110):
        alone.add(c_EM[era], nothing[0][era], nothing[1][era])
        twice.add(c_EM[era], nothing[0][era], nothing[1][era], c_EM[era])
    expected = [regimes.forecasts(LAG, nothing[0][110], nothing[1][110])[0] for regimes in (alone, twice)]
    np.testing.assert_allclose(*expected, rtol=1e-7)


@pytest.mark.parametrize("begun", [False, True])
def test_forecasts_from_disk_and_from_the_frozen_numbers_are_the_same_bytes(begun):
    _, _, c_EM = series(5, eras=120)
    _, _, first_EM = series(6, eras=120)
    own_EMF = np.random.default_rng(0).standard_normal((120, MODELS, 2))
    outside_ED = np.random.default_rng(1).standard_normal((120, 1))
    regimes = Regimes(MODELS, HORIZON)
    first = (first_EM[:100], C_MM + 0.1 * np.eye(MODELS)) if begun else None
    regimes.fit(c_EM[:100], own_EMF[:100], outside_ED[:100], C_MM, first)
    back = Regimes(MODELS, HORIZON)
    packed = save({name: np.ascontiguousarray(value) for name, value in regimes.arrays().items()})
    back.load(Layout(load(packed), M=MODELS))
    for one in (regimes, back):
        for position in range(100, 110):
            one.add(c_EM[position], own_EMF[position], outside_ED[position], first_EM[position])
            one.settle(one.forecasts(LAG, own_EMF[position], outside_ED[position])[1], c_EM[position])
    expected_M, answers_AM = regimes.forecasts(LAG, own_EMF[115], outside_ED[115])
    again_M, _ = back.forecasts(LAG, own_EMF[115], outside_ED[115])
    assert np.array_equal(expected_M, again_M)
    assert np.array_equal(foresee(regimes.numbers(LAG), own_EMF[115], outside_ED[115])[0], expected_M)
    assert len(answers_AM) == len(STATES) + 2 + 2 + 2 + 3 + 1


def test_forecasts_are_shrunk_by_the_slope_of_c_in_past_ones():
    _, _, c_EM = series(6, eras=120)
    own, outside = np.zeros((120, MODELS, 0)), np.zeros((120, 0))
    regimes = Regimes(MODELS, HORIZON)
    regimes.fit(c_EM[:100], own[:100], outside[:100], C_MM)
    assert regimes.trust == 1.0
    stable_MM = C_MM + STABLE * np.eye(MODELS)
    bank = regimes.numbers(LAG)
    noise_K, to_MK = bank["noise_BK"][0], bank["to_MK"]
    weight_MM = to_MK @ np.diag(1 / noise_K) @ to_MK.T
    product = square = 0.0
    for _ in range(20):
        c_M, answers_AM = regimes.forecasts(LAG, own[0], outside[0])
        plain_M = answers_AM[-1]
        np.testing.assert_allclose(plain_M, regimes.numbers(LAG)["share_A"] @ answers_AM[:-1], atol=1e-15)
        flat_M, flat_plain_M = (row_M.sum() / stable_MM.sum() * stable_MM.sum(axis=1) for row_M in (c_M, plain_M))
        np.testing.assert_allclose(c_M - flat_M, regimes.trust * (plain_M - flat_plain_M), atol=1e-12)
        np.testing.assert_allclose(flat_M, flat_plain_M, atol=1e-12)
        paid_M = 0.02 - (plain_M - flat_plain_M)  # the opposite of what was forecast
        paid_beside_M = paid_M - paid_M.sum() / stable_MM.sum() * stable_MM.sum(axis=1)
        product += (plain_M - flat_plain_M) @ weight_MM @ paid_beside_M / HORIZON
        square += (plain_M - flat_plain_M) @ weight_MM @ (plain_M - flat_plain_M) / HORIZON
        regimes.settle(answers_AM, paid_M)
        slope = (0.5 * module.SLOPE_WORTH + product) / (module.SLOPE_WORTH + square)
        assert regimes.trust == pytest.approx(np.clip(slope / 0.5, 0.0, 1.0), abs=1e-9)
    assert regimes.trust == 0.0
    before_A = regimes.numbers(LAG)["share_A"]
    for _ in range(200):  # what comes true is trusted again
        regimes.settle(answers_AM, answers_AM[-1])
    assert regimes.trust > 0.5
    assert (regimes.numbers(LAG)["share_A"] != before_A).any()


def test_the_slope_of_past_forecasts_is_kept():
    _, _, c_EM = series(7, eras=100)
    regimes, again = Regimes(MODELS, HORIZON), Regimes(MODELS, HORIZON)
    regimes.fit(c_EM, np.zeros((100, MODELS, 0)), np.zeros((100, 0)), C_MM)
    regimes.settle(np.tile(-c_EM[99], (len(STATES) + 1 + 1, 1)), c_EM[99])
    assert regimes.trust < 1.0
    again.load(Layout({name: np.ascontiguousarray(array) for name, array in regimes.arrays().items()}, M=MODELS))
    assert again.trust == regimes.trust


def test_directions_are_inverse_to_each_other_and_whiten_what_agrees_as_the_models_do():
    root = np.random.default_rng(2).standard_normal((MODELS, MODELS + 2))
    agreement_MM = root @ root.T / MODELS
    basis = directions(agreement_MM)
    np.testing.assert_allclose(basis.to_MK @ basis.back_KM, np.eye(MODELS), atol=1e-10)
    steady_MM = agreement_MM + STABLE * np.eye(MODELS)
    np.testing.assert_allclose(basis.to_MK.T @ steady_MM @ basis.to_MK, np.eye(MODELS), atol=1e-10)


def test_noise_of_few_eras_is_that_of_independent_models_and_of_many_their_own():
    root = np.random.default_rng(3).standard_normal((MODELS, MODELS + 2))
    basis = directions(root @ root.T / MODELS)
    own_K = np.random.default_rng(4).uniform(1.0, 2.0, MODELS)
    few_K, many_K = (steady(own_K, basis.power_K, count) for count in (1e-9, 1e9))
    np.testing.assert_allclose(many_K, own_K, rtol=1e-5)
    independent_MM = basis.back_KM.T @ np.diag(few_K) @ basis.back_KM
    np.testing.assert_allclose(independent_MM, independent_MM[0, 0] * np.eye(MODELS), atol=1e-5)


def test_what_cannot_vary_is_survived():
    regimes = Regimes(MODELS, HORIZON)
    constant = np.full((40, MODELS), 0.01)
    regimes.fit(constant, np.zeros((40, MODELS, 1)), np.full((40, 1), 3.0), C_MM)
    expected_M, _ = regimes.forecasts(LAG, np.zeros((MODELS, 1)), np.array([np.nan]))
    np.testing.assert_allclose(expected_M, 0.01, atol=1e-3)
    bank = regimes.numbers(LAG)
    assert CELLS not in bank["view_B"]
    assert np.isfinite(bank["mean_BSK"]).all()
