"""Summaries against pandas, HAC errors against statsmodels' formula written out, drawdown against a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerai_tools.scoring import sharpe_ratio

from eravane.calendar.horizon import Horizon
from eravane.report.formats import bounds
from eravane.scoring.metrics import critical_t, hac_mean, max_drawdown, summarise

scores = st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=60)


@settings(max_examples=50, deadline=None)
@given(scores)
def test_summary_equals_pandas_and_numerai_tools(values: list[float]) -> None:
    series = pd.Series(values)
    found = summarise([*values, np.nan])
    assert found.n_eras == len(values)
    assert found.corr_mean == pytest.approx(series.mean(), abs=1e-12)
    assert found.corr_std == pytest.approx(series.std(ddof=0), abs=1e-12)
    if series.std(ddof=0) > 1e-9:
        assert found.sharpe == pytest.approx(sharpe_ratio(series), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(scores)
def test_drawdown_is_the_worst_fall_between_two_eras(values: list[float]) -> None:
    sums = np.cumsum(values)
    worst = max(sums[i] - sums[j] for i in range(len(sums)) for j in range(i, len(sums)))
    assert max_drawdown(values) == pytest.approx(worst, abs=1e-12)


def _newey_west(x: np.ndarray, lag: int) -> float:
    """Variance of the mean as the double sum over pairs of eras that it is."""
    n, centred = len(x), x - x.mean()
    total = sum(
        (1 - abs(i - j) / (lag + 1)) * centred[i] * centred[j] for i in range(n) for j in range(n) if abs(i - j) <= lag
    )
    return total / n**2


@pytest.mark.parametrize("lag", [0, 1, 8, 16])
def test_hac_error_equals_the_double_sum(lag: int) -> None:
    noise = np.random.default_rng(lag).normal(size=90)
    series = np.convolve(noise, np.ones(4) / 4, mode="valid") + 0.1
    found = hac_mean(series, lag)
    assert found.se == pytest.approx(np.sqrt(_newey_west(series, lag)), rel=1e-10)
    assert found.t == pytest.approx(series.mean() / found.se * 1.96 / critical_t(len(series), lag))


def overlapping(rng: np.random.Generator, horizon: int, eras: int) -> np.ndarray:
    """Scores of a strategy of no worth whose labels are sums over so many weeks."""
    sums_E = np.cumsum(np.pad(rng.standard_normal(eras + horizon - 1), (1, 0)))
    return (sums_E[horizon:] - sums_E[:-horizon]) / np.sqrt(horizon)


@pytest.mark.parametrize("eras", [120, 300])
def test_a_null_strategy_of_60_day_labels_is_rejected_at_its_level(eras: int) -> None:
    """400 draws at 5 %: between 3 and 8 % with the lag of 60 days, far more with that of 20 days."""
    rng, span = np.random.default_rng(5), Horizon.of_days(60)
    draws = [overlapping(rng, span.eras, eras) for _ in range(400)]
    right, short = ([hac_mean(draw, lag) for draw in draws] for lag in (span.hac_lag, Horizon.of_days(20).hac_lag))
    rate = np.mean([abs(found.t) > 1.96 for found in right])
    assert 0.03 <= rate <= 0.08
    assert np.mean([abs(found.t) > 1.96 for found in short]) > 0.1
    # What mean / se alone would do: Bartlett weights count overlapping labels less than they are.
    assert np.mean([abs(found.mean) > 1.96 * found.se for found in right]) > 0.09
    # The interval that a report shows excludes zero exactly where t exceeds 1.96.
    assert np.mean([low > 0 or high < 0 for low, high in map(bounds, right)]) == rate


def test_the_critical_value_tends_to_the_normal_one_without_overlap() -> None:
    assert critical_t(10**6, 0) == pytest.approx(1.96, abs=1e-4)
    assert critical_t(100, 16) > critical_t(300, 16) > critical_t(1000, 16) > 2.2


def test_overlap_widens_the_error() -> None:
    noise = np.random.default_rng(0).normal(size=2000)
    overlapping = np.convolve(noise, np.ones(4), mode="valid")
    naive = overlapping.std() / np.sqrt(overlapping.size)
    assert 1.6 < hac_mean(overlapping, 8).se / naive < 2.1  # the sum of the autocorrelations is 4: a factor of 2


def test_no_scores_at_all() -> None:
    assert summarise([np.nan]).n_eras == 0
    assert summarise([]).as_dict()["corr_mean"] is None
    assert np.isnan(hac_mean([], 8).t)
