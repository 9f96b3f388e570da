"""Summaries against pandas, HAC errors against statsmodels' formula written out, drawdown against a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerai_tools.scoring import sharpe_ratio

from eravane.scoring.metrics import hac_mean, max_drawdown, summarise

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
    assert found.t == pytest.approx(series.mean() / found.se)


def test_overlap_widens_the_error() -> None:
    noise = np.random.default_rng(0).normal(size=2000)
    overlapping = np.convolve(noise, np.ones(4), mode="valid")
    naive = overlapping.std() / np.sqrt(overlapping.size)
    assert 1.6 < hac_mean(overlapping, 8).se / naive < 2.1  # the sum of the autocorrelations is 4: a factor of 2


def test_no_scores_at_all() -> None:
    assert summarise([np.nan]).n_eras == 0
    assert summarise([]).as_dict()["corr_mean"] is None
    assert np.isnan(hac_mean([], 8).t)
