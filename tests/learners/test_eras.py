"""Weights by era, against pandas and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from eravane import LevelsRegressor, boost_eras, corr_by_era, era_bag, every_nth_era, half_life_weights
from eravane.core.errors import ConfigError, DataError

ERAS = np.repeat([3, 1, 2, 7, 5], [40, 10, 25, 30, 15])


def test_weights_halve_with_age() -> None:
    weight_N = half_life_weights(ERAS, 2.0)
    assert weight_N.dtype == np.float32
    np.testing.assert_allclose(weight_N[ERAS == 7], 1.0)
    np.testing.assert_allclose(weight_N[ERAS == 5], 0.5)
    np.testing.assert_allclose(weight_N[ERAS == 1], 0.125)
    np.testing.assert_allclose(half_life_weights([f"{era:04d}" for era in ERAS], 2.0, newest=9), weight_N / 2)


def test_offsets_share_the_eras_out() -> None:
    chosen = [every_nth_era(ERAS, 2, offset) for offset in (0, 1)]
    assert set(ERAS[chosen[0]]) == {1, 3, 7}
    np.testing.assert_array_equal(chosen[0], ~chosen[1])
    np.testing.assert_array_equal(every_nth_era(pd.Series(ERAS), 2, 5), chosen[1])
    assert every_nth_era(ERAS, 1).all()


def test_a_bag_holds_whole_eras_of_equal_weight() -> None:
    bags = np.stack([era_bag(ERAS, seed) for seed in range(400)])
    np.testing.assert_allclose(bags.sum(axis=1), len(ERAS), rtol=1e-5)
    np.testing.assert_array_equal(era_bag(ERAS, 3), bags[3])
    for era in np.unique(ERAS):  # the rows of an era have one weight
        assert (bags[:, era == ERAS] == bags[:, era == ERAS][:, :1]).all()
    total = pd.DataFrame(bags.T).groupby(ERAS).sum()
    np.testing.assert_allclose(total.mean(axis=1), len(ERAS) / 5, rtol=0.2)
    assert (total == 0).to_numpy().mean() == pytest.approx((1 - 1 / 5) ** 5, abs=0.05)


def test_boosting_eras_lifts_the_worst() -> None:
    """Two kinds of eras that follow different columns, one of them in few eras: plain trees neglect these."""
    rng = np.random.default_rng(0)
    eras = np.repeat(np.arange(1, 41), 100)
    x_NC = rng.integers(0, 5, (len(eras), 4)).astype(np.int8)
    rare = eras % 5 == 0
    label_N = np.where(rare, x_NC[:, 1], x_NC[:, 0]) / 4 + 0.3 * rng.normal(size=len(eras))
    settings: dict[str, Any] = {"max_depth": 2, "learning_rate": 0.1}
    how: dict[str, Any] = {"blocks": 5, "share": 0.2, "factor": 8.0}
    plain = LevelsRegressor(n_estimators=40, **settings).fit(x_NC, label_N)
    boosted = boost_eras(LevelsRegressor(n_estimators=8, **settings), x_NC, label_N, eras, **how)
    assert boosted.get_booster().num_boosted_rounds() == 40
    worst = [corr_by_era(label_N, model.predict(x_NC), eras)[rare[::100]].mean() for model in (plain, boosted)]
    assert worst[1] > worst[0] + 0.02


def test_the_first_block_is_plain_and_later_ones_weigh() -> None:
    """By hand: two blocks are a fit, and another one from it with the worst half of the eras at the factor."""
    rng = np.random.default_rng(1)
    eras = np.repeat([1, 2, 3, 4], 50)
    x_NC = rng.integers(0, 5, (200, 3)).astype(np.int8)
    label_N = x_NC[:, 0] * (eras > 2) / 4 + rng.normal(size=200)
    settings: dict[str, Any] = {"n_estimators": 3, "max_depth": 2}
    first = LevelsRegressor(**settings).fit(x_NC, label_N, sample_weight=np.ones(200))
    worst = corr_by_era(label_N, first.predict(x_NC), eras).nsmallest(2).index
    weight_N = np.where(np.isin(eras, worst), 3.0, 1.0)
    expected = LevelsRegressor(**settings).fit(x_NC, label_N, sample_weight=weight_N, xgb_model=first)
    found = boost_eras(LevelsRegressor(**settings), x_NC, label_N, eras, blocks=2, factor=3.0)
    np.testing.assert_array_equal(found.predict(x_NC), expected.predict(x_NC))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: half_life_weights(ERAS, 0), ConfigError, "half_life"),
        (lambda: half_life_weights(ERAS, np.nan), ConfigError, "half_life"),
        (lambda: half_life_weights([1.5, 2], 3), DataError, "whole numbers"),
        (lambda: half_life_weights([], 3), DataError, "given none"),
        (lambda: every_nth_era(ERAS, 0), ConfigError, "n: expected"),
        (lambda: every_nth_era(ERAS, 2.5), ConfigError, "n: expected"),
        (lambda: era_bag(["x1"], 0), DataError, "x1"),
        (lambda: boost_eras(LevelsRegressor(), [[1]], [1], [1], blocks=0), ConfigError, "blocks"),
        (lambda: boost_eras(LevelsRegressor(), [[1]], [1], [1], share=1.0), ConfigError, "share"),
        (lambda: boost_eras(LevelsRegressor(), [[1], [2]], [1], [1, 2]), DataError, "y has 1 rows"),
    ],
)
def test_nonsense_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
