"""Comparators and the top level against plain transcriptions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.gate.experts import AdaHedge, Average, correlation, normalise, ridge_weights


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


def test_correlation_of_a_constant_ensemble_is_zero():
    assert correlation(np.array([1.0, 0.0]), np.array([0.0, 0.1]), np.diag([0.0, 1.0])) == 0.0


def plain_adahedge(losses_TP):
    """Figure 1 of de Rooij et al. (2014), with the mix loss written out in long double."""
    count, gap, total_P, spent = losses_TP.shape[1], 0.0, np.zeros(losses_TP.shape[1]), 0.0
    for loss_P in losses_TP:
        if gap == 0:
            weights_P = (total_P == total_P.min()) / (total_P == total_P.min()).sum()
            mix = loss_P[weights_P > 0].min()
        else:
            rate = np.longdouble(np.log(count) / gap)
            raw_P = np.exp(-rate * (total_P - total_P.min()).astype(np.longdouble))
            weights_P = raw_P / raw_P.sum()
            mix = -np.log((weights_P * np.exp(-rate * loss_P)).sum()) / rate
        hedge = float((weights_P * loss_P).sum())
        gap += max(0.0, hedge - float(mix))
        total_P = total_P + loss_P
        spent += hedge
    return gap, spent


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_adahedge_equals_a_plain_transcription_and_keeps_its_bound(seed, experts):
    losses_TP = np.random.default_rng(seed).uniform(0, 1, (60, experts)) ** 2
    hedge, spent = AdaHedge(np.zeros(experts)), 0.0
    for loss_P in losses_TP:
        spent += float(hedge.weights_P @ loss_P)
        hedge.update(loss_P)
    gap, plain_spent = plain_adahedge(losses_TP)
    assert hedge.gap == pytest.approx(gap, abs=1e-9)
    assert spent == pytest.approx(plain_spent, abs=1e-9)
    best = losses_TP.sum(0).min()
    log_k = np.log(experts)
    bound = 2 * np.sqrt(best * (60 - best) / 60 * log_k) + (16 / 3 + 2 + 1) * log_k + 2
    assert spent - best <= bound


def test_adahedge_survives_losses_that_never_differ():
    hedge = AdaHedge(np.zeros(3))
    for _ in range(20):
        hedge.update(np.full(3, -0.02))
    np.testing.assert_allclose(hedge.weights_P, 1 / 3)
