"""The change-point detector against enumeration, against a plain transcription, and at what it is for."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from eravane.gate.changepoints import EVEN, LEAST_VARIANCE, RUNS, ChangePoints

NOISE, HORIZON = 0.016, 4


def scores(seed, eras, models, levels=None, horizon=HORIZON):
    """Labels that overlap over the horizon, around levels [E, M]."""
    weekly_EM = np.random.default_rng(seed).standard_normal((eras + horizon - 1, models)) * NOISE
    noise_EM = np.stack([weekly_EM[e : e + horizon].sum(0) for e in range(eras)]) / np.sqrt(horizon)
    return noise_EM + (np.zeros((eras, models)) if levels is None else levels)


def fed(values_EM, horizon=HORIZON, every=52.0, present_EM=None, cls=ChangePoints):
    found = cls(values_EM.shape[1], horizon, every)
    for e, row_M in enumerate(values_EM):
        found.add(row_M, np.ones(len(row_M), dtype=bool) if present_EM is None else present_EM[e])
    return found


class Known(ChangePoints):
    """With the scales given: what is left is the recursion."""

    _mean_M = np.array([0.3, -0.2])

    def _estimate(self):
        self._noise, self._variance_M = 0.5, np.array([1.5, 0.7])
        angle = 0.4
        self._turn_MM = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("horizon", [1, 2])
def test_the_recursion_equals_the_sum_over_all_segmentations(horizon):
    """Every way to cut the eras after the first few, with its likelihood as one joint Gaussian per segment."""
    first, eras, every = 3 * horizon, 3 * horizon + 7, 5.0
    values_EM = (
        np.random.default_rng(3).standard_normal((eras, 2)) + np.repeat([[0.0, 0.0], [2.0, -2.0]], eras, 0)[-eras:]
    )
    found = fed(values_EM, horizon, every, cls=Known)
    turned_EM = (values_EM - Known._mean_M) @ found._turn_MM

    def density(start, end):
        """Log density of eras [start, end) as one segment, given those that came before `first`, tempered."""
        total = 0.0
        for m, variance in enumerate([1.5, 0.7]):
            for stop, sign in ((end, 1), (max(start, first) if start < first else start, -1)):
                size = stop - start
                if size > 0:
                    total += sign * tempered(turned_EM[start:stop, m], variance)
        return total

    def tempered(row, variance):
        """Predictives one after another: those of a level that eras inform by 1 / horizon each, to that power."""
        total = 0.0
        for n in range(len(row)):
            past = np.full((n + 1, n + 1), variance) + np.diag([*np.full(n, 0.5 * horizon), 0.5])
            joint = multivariate_normal(np.zeros(n + 1), past).logpdf(row[: n + 1])
            before = multivariate_normal(np.zeros(n), past[:n, :n]).logpdf(row[:n]) if n else 0.0
            total += (joint - before) / horizon
        return total

    logs, levels = [], []
    for count in range(eras - first + 1):
        for cuts in combinations(range(first, eras), count):
            edges = [0, *cuts, eras]
            prior = count * np.log(1 / every) + (eras - first - count) * np.log(1 - 1 / every)
            logs.append(prior + sum(density(a, b) for a, b in pairwise(edges)))
            last_EM = turned_EM[edges[-2] :]
            precision_M = 1 / np.array([1.5, 0.7]) + len(last_EM) / (0.5 * horizon)
            levels.append(last_EM.sum(0) / (0.5 * horizon) / precision_M)
    share_K = np.exp(np.array(logs) - logsumexp(logs))
    expected_M = Known._mean_M + found._turn_MM @ (share_K @ np.array(levels))
    np.testing.assert_allclose(found.forecast_M, expected_M, rtol=1e-9)


def transcription(values_EM, present_EM, horizon, every):
    """The module's docstring, with loops over the whole past at every era, and no start dropped."""
    eras, models = values_EM.shape
    filled_EM = values_EM.copy()
    for e in range(eras):
        for m in np.flatnonzero(~present_EM[e]):
            met = present_EM[:e, m].any()
            filled_EM[e, m] = filled_EM[:e, m].mean() if met else values_EM[e, present_EM[e]].mean()
    starts, logs, scales = [0], np.zeros(1), None
    for e in range(3 * horizon, eras):
        past_EM = filled_EM[:e]
        if scales is None or e % 13 == 0:
            jumps = [
                (past_EM[i, m] - past_EM[i - horizon, m]) ** 2
                for i in range(horizon, e)
                for m in range(models)
                if present_EM[i, m] and present_EM[i - horizon, m]
            ]
            noise = np.mean(jumps) / 2
            level = max(past_EM.var(0).mean() - noise, LEAST_VARIANCE * noise)
            centred_EM = past_EM - past_EM.mean(0)
            pairs = [
                np.outer(centred_EM[i], centred_EM[i - gap])
                for i in range(2 * horizon, e)
                for gap in range(horizon, 2 * horizon + 1)
            ]
            lasting_MM = np.mean(pairs, axis=0)
            values_M, turn_MM = np.linalg.eigh((lasting_MM + lasting_MM.T) / 2)
            values_M = values_M.clip(0)
            scales = noise, level * (EVEN + (1 - EVEN) * values_M / values_M.mean()), turn_MM
        noise, tau_M, turn_MM = scales
        mean_M = shrunk(past_EM, horizon * noise / e)
        here_M = (filled_EM[e] - mean_M) @ turn_MM
        news = []
        for start in starts:
            level_M, variance_M = level_of(past_EM[start:] - mean_M, turn_MM, tau_M, horizon * noise)
            news.append(gaussian(here_M - level_M, variance_M + noise) / horizon)
        fresh = gaussian(here_M, tau_M + noise) / horizon
        logs = np.append(np.log(1 - 1 / every) + logs + news, np.log(1 / every) + fresh)
        logs, starts = logs - logsumexp(logs), [*starts, e]
    noise, tau_M, turn_MM = scales
    mean_M = shrunk(filled_EM, horizon * noise / eras)
    levels = [level_of(filled_EM[s:] - mean_M, turn_MM, tau_M, horizon * noise)[0] for s in starts]
    return mean_M + turn_MM @ (np.exp(logs) @ np.array(levels))


def shrunk(past_EM, error):
    mean_M = past_EM.mean(0)
    return mean_M.mean() + max(0, 1 - error / mean_M.var(ddof=1)) * (mean_M - mean_M.mean())


def level_of(segment_EM, turn_MM, tau_M, scale):
    variance_M = 1 / (1 / tau_M + len(segment_EM) / scale)
    return variance_M * (segment_EM @ turn_MM).sum(0) / scale, variance_M


def gaussian(x_M, variance_M):
    return multivariate_normal(np.zeros(len(x_M)), np.diag(variance_M)).logpdf(x_M) + len(x_M) * np.log(2 * np.pi) / 2


@pytest.mark.parametrize("absent", [False, True])
def test_forecasts_equal_a_plain_transcription(absent):
    rng = np.random.default_rng(1)
    levels_EM = np.repeat(0.02 * rng.standard_normal((3, 5)), 19, axis=0)
    values_EM = scores(1, 57, 5, levels_EM)
    present_EM = np.ones((57, 5), dtype=bool)
    if absent:
        present_EM[:20, 4], present_EM[30:35, 1] = False, False
    found = fed(np.where(present_EM, values_EM, 0.0), present_EM=present_EM)
    expected_M = transcription(values_EM, present_EM, HORIZON, 52.0)
    np.testing.assert_allclose(found.forecast_M, expected_M, rtol=1e-8)


def errors(levels_EM):
    """Mean absolute errors of the detector and of exponential means with the ridge's half-life, over six draws."""
    share_E = 0.5 ** (np.arange(len(levels_EM))[::-1] / 16)
    found = []
    for seed in range(6):
        values_EM = scores(seed, *levels_EM.shape, levels_EM)
        forecasts = fed(values_EM).forecast_M, np.average(values_EM, axis=0, weights=share_E)
        found.append([np.abs(forecast_M - levels_EM[-1]).mean() for forecast_M in forecasts])
    return np.mean(found, axis=0)


def test_after_a_change_the_new_segment_counts():
    good_M = np.arange(8) < 4
    before_M, after_M = np.where(good_M, 0.04, 0.0), np.where(good_M, 0.0, 0.04)
    detector, exponential = errors(np.vstack([np.tile(before_M, (130, 1)), np.tile(after_M, (16, 1))]))
    assert detector < 0.7 * exponential


def test_where_nothing_changes_all_eras_count():
    detector, exponential = errors(np.tile(np.linspace(0, 0.02, 8), (300, 1)))
    assert detector < 0.7 * exponential


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 5))
def test_permuting_the_models_permutes_the_forecasts(seed, horizon, models):
    rng = np.random.default_rng(seed)
    values_EM, order = scores(seed, 45, models, horizon=horizon), rng.permutation(models)
    plain, moved = fed(values_EM, horizon), fed(values_EM[:, order], horizon)
    np.testing.assert_allclose(moved.forecast_M, plain.forecast_M[order], rtol=1e-6, atol=1e-9)


def test_the_past_is_bounded_and_repeatable():
    values_EM = scores(4, 400, 3)
    found, again = fed(values_EM), fed(values_EM)
    assert len(found._log_R) == len(found._before_R) == len(found._sum_RM) <= RUNS
    assert np.exp(found._log_R).sum() == pytest.approx(1.0)
    assert np.array_equal(found.forecast_M, again.forecast_M)


@pytest.mark.parametrize("values_EM", [np.zeros((40, 3)), np.full((40, 3), 0.01), scores(0, 40, 1), scores(0, 3, 4)])
def test_degenerate_pasts_give_finite_forecasts(values_EM):
    found = ChangePoints(values_EM.shape[1], HORIZON, 52.0)
    assert (found.forecast_M == 0).all()
    for e, row_M in enumerate(values_EM):
        found.add(row_M, np.arange(len(row_M)) != e % 7)
        assert np.isfinite(found.forecast_M).all()
