"""Experts on lagged scores and the rule that mixes experts, against plain transcriptions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from eravane.gate.experts import (
    RATES,
    STABLE,
    Average,
    Squint,
    correlation,
    normalise,
    ridge_weights,
    shrunk,
    slope,
)
from eravane.gate.portable_weights import STEADY, long_only_weights
from eravane.gate.records import JUDGED_AFTER, Standing
from eravane.scoring.metrics import hac_mean

HORIZON = 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan")), st.just(float("inf"))), min_size=1, max_size=8))
def test_normalised_weights_are_a_distribution_whatever_comes_in(values):
    weights_M = normalise(np.array(values), np.ones(len(values), dtype=bool))
    assert np.isfinite(weights_M).all()
    assert (weights_M >= 0).all()
    assert weights_M.sum() == pytest.approx(1.0)


def test_closed_models_get_no_weight():
    weights_M = normalise(np.array([1.0, 5.0, 1.0]), np.array([True, False, True]))
    assert weights_M.tolist() == [0.5, 0.0, 0.5]


def test_average_is_the_bias_corrected_exponential_mean_of_pandas():
    rng = np.random.default_rng(0)
    values_EM = rng.standard_normal((30, 3))
    average = Average.zeros((3,), half_life=5.0)
    for value_M in values_EM:
        average.add(value_M, np.ones(3, dtype=bool))
    expected = pd.DataFrame(values_EM).ewm(halflife=5.0, adjust=True).mean().iloc[-1]
    np.testing.assert_allclose(average.mean, expected, rtol=1e-12)


def test_an_absent_model_leaves_its_average_alone():
    average = Average.zeros((2,), half_life=2.0)
    average.add(np.array([1.0, 1.0]), np.array([True, True]))
    average.add(np.array([5.0, 99.0]), np.array([True, False]))
    assert average.mean[1] == pytest.approx(1.0)


def test_ridge_solves_the_normal_equations_of_stacked_rows():
    rng = np.random.default_rng(1)
    z_MN = rng.standard_normal((4, 300)) + 0.5 * rng.standard_normal(300)
    y_N = rng.standard_normal(300) + z_MN.sum(0) * 0.3
    n, ridge = 300, 0.7
    rows = np.vstack([z_MN.T, np.sqrt(n * ridge) * np.eye(4)])
    expected, *_ = np.linalg.lstsq(rows, np.append(y_N, np.zeros(4)), rcond=None)
    weights_M = ridge_weights(z_MN @ y_N / n, z_MN @ z_MN.T / n, ridge, np.ones(4, dtype=bool))
    np.testing.assert_allclose(weights_M, expected / expected.sum(), atol=1e-7)


def test_ridge_without_a_positive_weight_is_equal_weight():
    weights_M = ridge_weights(np.array([-1.0, -1.0]), np.eye(2), 1.0, np.ones(2, dtype=bool))
    assert weights_M.tolist() == [0.5, 0.5]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_long_only_weights_are_the_best_that_are_not_negative(seed, size):
    rng = np.random.default_rng(seed)
    z_MN = rng.standard_normal((size, 40)) + rng.standard_normal(40) * rng.uniform(0, 3)
    C_MM, c_M = np.corrcoef(z_MN).reshape(size, size), 0.02 * rng.standard_normal(size) + 0.01
    present_M = rng.random(size) < 0.8
    present_M[0] = True
    weights_M = long_only_weights(c_M, C_MM, present_M)
    system_MM, kept = C_MM + STEADY * np.eye(size), np.flatnonzero(present_M)
    root_MM = np.linalg.cholesky(system_MM[np.ix_(kept, kept)])
    expected, _ = nnls(root_MM.T, np.linalg.solve(root_MM, c_M[kept]))
    whole_M = np.zeros(size)
    whole_M[kept] = expected
    np.testing.assert_allclose(weights_M, normalise(whole_M, present_M), atol=1e-7)


def test_long_only_weights_without_any_gain_are_equal_and_alike_models_are_survived():
    everyone = np.ones(3, dtype=bool)
    assert long_only_weights(np.array([-1.0, 0.0, -2.0]), np.eye(3), everyone).tolist() == [1 / 3] * 3
    alike = long_only_weights(np.full(3, 0.02), np.ones((3, 3)), everyone)
    assert np.isfinite(alike).all()
    assert alike.sum() == pytest.approx(1.0)
    assert long_only_weights(np.array([0.01, 0.03, 0.02]), np.eye(3), np.array([True, False, True]))[1] == 0.0


def test_correlation_of_a_constant_ensemble_is_zero():
    assert correlation(np.array([1.0, 0.0]), np.array([0.0, 0.1]), np.diag([0.0, 1.0])) == 0.0


def test_slope_is_the_derivative_of_the_correlation():
    rng = np.random.default_rng(2)
    root = rng.standard_normal((4, 6))
    C_MM, c_M, weights_M = root @ root.T / 6, rng.standard_normal(4), rng.random(4)
    steps = 1e-6 * np.eye(4)
    expected = [(correlation(weights_M + h, c_M, C_MM) - correlation(weights_M - h, c_M, C_MM)) / 2e-6 for h in steps]
    np.testing.assert_allclose(slope(weights_M, c_M, C_MM), expected, rtol=1e-6)


def plain_squint(prior_P, gains_TP):
    """The weights before every round, written as sums over rates and rounds in long double."""
    rows, kept = [], []
    for _ in range(len(gains_TP) + 1):
        weights = []
        for p, prior in enumerate(prior_P):
            terms = [
                np.longdouble(rate) * np.exp(sum(rate * r[p] - HORIZON * rate**2 * r[p] ** 2 for r in kept))
                for rate in RATES.astype(np.longdouble)
            ]
            weights.append(prior * sum(terms))
        weights_P = np.array(weights, dtype=np.longdouble) / sum(weights)
        rows.append(weights_P.astype(np.float64))
        if len(kept) < len(gains_TP):
            gains_P = gains_TP[len(kept)]
            kept.append((gains_P - weights_P @ gains_P).astype(np.longdouble))
    return np.array(rows)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_squint_equals_a_plain_transcription(seed, experts):
    rng = np.random.default_rng(seed)
    gains_TP, prior_P = 0.02 * rng.standard_normal((25, experts)), rng.dirichlet(np.ones(experts))
    squint, rows = Squint(prior_P, HORIZON), []
    for gains_P in gains_TP:
        rows.append(squint.weights_P)
        squint.update(rows[-1], gains_P)
    np.testing.assert_allclose([*rows, squint.weights_P], plain_squint(prior_P, gains_TP), rtol=1e-8)


def test_squint_finds_the_best_expert_and_stays_at_the_prior_without_differences():
    prior_P = np.array([0.6, 0.3, 0.1])
    alike, apart = Squint(prior_P, 1), Squint(prior_P, 1)
    rng = np.random.default_rng(0)
    for _ in range(400):
        alike.update(alike.weights_P, np.full(3, 0.01))
        apart.update(apart.weights_P, np.array([0.0, 0.0, 0.004]) + 0.01 * rng.standard_normal(3))
    np.testing.assert_allclose(alike.weights_P, prior_P)
    assert apart.weights_P[2] > 0.9


def test_shrinking_keeps_equal_weights_where_noise_explains_all_and_nothing_where_there_is_none():
    rng = np.random.default_rng(3)
    root = rng.standard_normal((5, 8))
    C_MM = root @ root.T / 8 + 0.5 * np.eye(5)
    c_M = rng.standard_normal(5) + 3
    np.testing.assert_allclose(shrunk(c_M, C_MM, 0.0), c_M)
    flat_M = shrunk(c_M, C_MM, 1e9)
    np.testing.assert_allclose(np.linalg.solve(C_MM + STABLE * np.eye(5), flat_M), flat_M.sum() / C_MM.sum(), rtol=0.05)
    half = shrunk(c_M, C_MM, 0.01)
    rest, kept = c_M - flat_M, half - flat_M
    power = rest @ np.linalg.solve(C_MM + STABLE * np.eye(5), rest)
    np.testing.assert_allclose(kept, (1 - 4 * 0.01 / power) * rest)


def test_a_plain_mean_is_an_average_with_an_infinite_half_life():
    rng = np.random.default_rng(4)
    values_EM, average = rng.standard_normal((9, 2)), Average.zeros((2,), float("inf"))
    for value_M in values_EM:
        average.add(value_M, np.ones(2, dtype=bool))
    np.testing.assert_allclose(average.mean, values_EM.mean(axis=0))


def test_who_is_worse_than_the_pool_leaves_with_its_error_and_may_return():
    rng = np.random.default_rng(5)
    C_MM, models, horizon = 0.5 + 0.5 * np.eye(4), 4, 4
    standing, rows = Standing(models, horizon), []
    weekly_TM = 0.01 * rng.standard_normal((303, models))
    for era in range(300):
        level_M = np.array([0.02, 0.02, 0.02, -0.01 if era < 150 else 0.06])
        c_M = level_M + weekly_TM[era : era + 4].sum(axis=0) / 2
        standing.add(c_M, C_MM, np.ones(4, dtype=bool))
        rows.append((slope(np.full(4, 0.25), c_M, C_MM), standing.out_M.copy()))
        if era == 149:
            assert standing.out_M.tolist() == [False, False, False, True]
            added_EM = np.array([row for row, _ in rows])
            np.testing.assert_allclose(standing.mean_M, added_EM.mean(axis=0))
            expected = [hac_mean(added_E, 2 * horizon).se for added_E in added_EM.T]
            np.testing.assert_allclose(standing.error_M, expected, rtol=0.03)
    assert not standing.out_M[3]
    assert not any(out[3] for _, out in rows[: JUDGED_AFTER - 1])
