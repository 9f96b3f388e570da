"""The made world's statistics: levels, targets, overlap in time, regimes and where they show."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numerai_tools.scoring import numerai_corr
from scipy.stats import norm, rankdata

from eravane.core.errors import ConfigError
from eravane.synth import MadeEra, SynthConfig, World, iter_eras
from eravane.synth.signal import draw_regimes
from eravane.synth.world import fifths

FULL = SynthConfig(
    eras=60, rows=4_000, features=240, missing_share=0.0, targets=("target_ender_20",), main_target="target_ender_20"
)
SMALL = SynthConfig(eras=40, rows=300, features=48, groups=4, seed=5)


def autocorrelation(series_E: np.ndarray, lags: tuple[int, ...]) -> np.ndarray:
    """Pearson correlation of a series with itself, as pandas computes it."""
    series = pd.Series(series_E)
    return np.array([series.autocorr(lag) for lag in lags])


def pearson(a_N: np.ndarray, b_N: np.ndarray) -> float:
    return float(np.corrcoef(a_N, b_N)[0, 1])


def mean_pair_correlation(x_FN: np.ndarray) -> float:
    C_FF = np.corrcoef(x_FN)
    return float(C_FF[np.triu_indices_from(C_FF, 1)].mean())


@given(
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(5, 60)), elements=st.sampled_from([0, 0.5, 1, 2, 3]))
)
@settings(max_examples=50, deadline=None)
def test_fifths_are_equal_and_ordered_even_with_ties(x_BN):
    levels_BN = fifths(x_BN)
    for x_N, level_N in zip(x_BN, levels_BN, strict=True):
        counts = np.bincount(level_N, minlength=5)
        assert counts.max() - counts.min() <= 1
        by_rank = level_N[np.argsort(rankdata(x_N, method="ordinal"))]
        assert (np.diff(by_rank) >= 0).all()


def test_every_era_has_exact_fifths_and_target_shares():
    for made in iter_eras(replace(SMALL, missing_share=0.0)):
        n = made.features_FN.shape[1]
        assert made.features_FN.dtype == np.int8
        assert made.targets_TN.dtype == np.float32
        for level in range(5):
            count_F = (made.features_FN == level).sum(axis=1)
            assert np.abs(count_F - n / 5).max() <= 1
        for value, share in zip((0, 0.25, 0.5, 0.75, 1), (0.05, 0.2, 0.5, 0.2, 0.05), strict=True):
            count_T = (made.targets_TN == value).sum(axis=1)
            assert np.abs(count_T - share * n).max() <= 1


def test_rows_vary_slowly_within_the_spread():
    rows_E = World(SynthConfig(eras=300, rows=1_000, row_spread=0.1)).rows_E
    assert 900 <= rows_E.min() < 950 < 1_050 < rows_E.max() <= 1_100
    assert np.abs(np.diff(rows_E)).max() <= 21


def test_late_features_are_level_2_until_they_start():
    world = World(replace(SMALL, missing_share=0.25))
    late_F = world.first_era_F > 1
    assert late_F.sum() == 12
    assert world.first_era_F.max() <= 0.3 * SMALL.eras
    for made in world.eras():
        all_two_F = (made.features_FN == 2).all(axis=1)
        np.testing.assert_array_equal(all_two_F, world.first_era_F > made.era)


def test_late_float_features_are_nan_until_they_start():
    world = World(replace(SMALL, missing_share=0.25, regimes="marginal"))
    made = next(world.eras())
    np.testing.assert_array_equal(np.isnan(made.features_FN).all(axis=1), world.first_era_F > 1)
    assert not np.isnan(made.signals_GN).any()


@pytest.fixture(scope="module")
def long_history() -> list[MadeEra]:
    config = SynthConfig(
        eras=1_200, rows=80, features=24, groups=4, null=True, snr=0.1, targets=("target_ender_20", "target_ender_60")
    )
    return list(iter_eras(config))


def binned(correlations: tuple[float, ...]) -> np.ndarray:
    """What is left of normal variables' correlations after cutting both into 5/20/50/20/5 %."""
    rng = np.random.default_rng(0)
    a_N, b_N = rng.standard_normal((2, 300_000))
    cuts = norm.ppf([0.05, 0.25, 0.75, 0.95])
    pairs = ((a_N, r * a_N + np.sqrt(1 - r**2) * b_N) for r in correlations)
    return np.array([pearson(np.searchsorted(cuts, x_N), np.searchsorted(cuts, y_N)) for x_N, y_N in pairs])


@pytest.mark.parametrize(
    ("target", "lags", "shared", "tolerance"),
    [
        (0, (1, 2, 3, 4, 5, 8), (0.75, 0.5, 0.25, 0, 0, 0), 0.08),
        (1, (1, 3, 6, 9, 12, 15), (11 / 12, 0.75, 0.5, 0.25, 0, 0), 0.15),
    ],
)
def test_scores_of_a_fixed_model_overlap_as_its_target_does(long_history, target, lags, shared, tolerance):
    score_GE = [[pearson(made.signals_GN[g], made.targets_TN[target]) for made in long_history] for g in range(4)]
    measured = np.mean([autocorrelation(np.array(score_E), lags) for score_E in score_GE], axis=0)
    np.testing.assert_allclose(measured, binned(shared), atol=tolerance)


def test_scores_of_a_fitted_model_overlap_too(long_history):
    x_NF = np.concatenate([made.features_FN.T for made in long_history[:100]]) - 2.0
    y_N = np.concatenate([made.targets_TN[0] for made in long_history[:100]]) - 0.5
    weights_F = np.linalg.solve(x_NF.T @ x_NF + 100 * np.eye(24), x_NF.T @ y_N)
    score_E = np.array([pearson(weights_F @ made.features_FN, made.targets_TN[0]) for made in long_history[110:]])
    np.testing.assert_allclose(autocorrelation(score_E, (1, 2, 3, 4, 5)), binned((0.75, 0.5, 0.25, 0, 0)), atol=0.1)


def test_realised_weights_are_moving_sums_around_the_expected(long_history):
    noise_HEG = np.array([[m.realised_20_G - m.expected_G, m.realised_60_G - m.expected_G] for m in long_history])
    twenty, sixty = (
        np.mean([autocorrelation(noise_HEG[:, h, g], lags) for g in range(4)], axis=0)
        for h, lags in ((0, (1, 2, 3, 4, 6)), (1, (3, 6, 9, 12, 15)))
    )
    np.testing.assert_allclose(twenty, [0.75, 0.5, 0.25, 0, 0], atol=0.1)
    np.testing.assert_allclose(sixty, [0.75, 0.5, 0.25, 0, 0], atol=0.2)
    np.testing.assert_allclose(noise_HEG.std(axis=(0, 2)), 0.1, rtol=0.15)
    # Both horizons sum the same weeks: 4 shared of 4 and 12, so their correlation is 4 / sqrt(4 * 12).
    assert pearson(noise_HEG[:, 0].ravel(), noise_HEG[:, 1].ravel()) == pytest.approx(4 / np.sqrt(48), abs=0.1)


def test_targets_pay_the_realised_weights():
    config = SynthConfig(eras=30, rows=8_000, features=48, groups=4, snr=0.3, return_noise=0.4, missing_share=0.0)
    slopes, realised = [], []
    for made in iter_eras(config):
        y_N = made.targets_TN[config.targets.index("target_ender_20")]
        slopes.append(np.linalg.lstsq(made.signals_GN.T, (y_N - y_N.mean()) / y_N.std(), rcond=None)[0])
        realised.append(made.realised_20_G)
    assert pearson(np.ravel(slopes), np.ravel(realised)) > 0.97
    assert np.polyfit(np.ravel(realised), np.ravel(slopes), 1)[0] == pytest.approx(0.3 * 0.93, rel=0.15)


def test_rows_of_consecutive_eras_cannot_be_matched_by_position():
    for first, second in pairwise(iter_eras(SMALL)):
        n = min(first.features_FN.shape[1], second.features_FN.shape[1])
        assert abs(pearson(first.features_FN[:, :n].ravel(), second.features_FN[:, :n].ravel())) < 0.1


def test_regimes_stay_with_the_given_probability_and_visit_all_states():
    regime_E = draw_regimes(np.random.default_rng(0), SynthConfig(persistence=0.97), 200_000)
    assert np.mean(regime_E[1:] == regime_E[:-1]) == pytest.approx(0.97, abs=0.002)
    np.testing.assert_allclose(np.bincount(regime_E) / regime_E.size, 0.25, atol=0.03)


def test_each_regime_has_four_strong_groups_and_one_reversed():
    weights_RG = World(FULL).weights_RG
    np.testing.assert_allclose((weights_RG**2).sum(axis=1), 1)
    assert ((weights_RG > 0.4).sum(axis=1) == 4).all()
    assert ((weights_RG < 0).sum(axis=1) == 1).all()
    assert len({tuple(np.flatnonzero(w > 0.4)) for w in weights_RG}) > 1


def correlation_gap(config: SynthConfig) -> float:
    """How much higher a group's mean pairwise correlation is in eras where it is strong, mean over groups."""
    world = World(config)
    active, idle = [[] for _ in world.layout.groups], [[] for _ in world.layout.groups]
    for made in iter_eras(config):
        for g in range(len(world.layout.groups)):
            statistic = mean_pair_correlation(made.features_FN[world.layout.home_F == g])
            (active if made.expected_G[g] > 0.4 else idle)[g].append(statistic)
    return float(np.mean([np.mean(a) - np.mean(i) for a, i in zip(active, idle, strict=True) if a and i]))


STRUCTURE = SynthConfig(eras=30, rows=2_000, features=120, persistence=0.6, missing_share=0.0, seed=3)


def test_structure_shows_active_groups_in_their_correlation():
    # Cutting into fifths keeps about nine tenths of a latent correlation of .25 to .30.
    assert correlation_gap(STRUCTURE) == pytest.approx(0.05 * 0.9, abs=0.008)


@pytest.mark.parametrize("regimes", ["hidden", "marginal"])
def test_other_worlds_do_not_show_it_there(regimes):
    assert abs(correlation_gap(replace(STRUCTURE, regimes=regimes))) < 0.004


def test_marginal_shows_active_groups_in_mean_and_spread():
    config = replace(STRUCTURE, regimes="marginal")
    world = World(config)
    active, idle = [], []
    for made in iter_eras(config):
        assert made.features_FN.dtype == np.float32
        for g in range(12):
            x_FN = made.features_FN[world.layout.home_F == g]
            (active if made.expected_G[g] > 0.4 else idle).append((x_FN.mean(), x_FN.std(axis=1).mean()))
    np.testing.assert_allclose(np.mean(active, axis=0), (0.3, 1.1), atol=0.03)
    np.testing.assert_allclose(np.mean(idle, axis=0), (0.0, 1.0), atol=0.03)


def test_hidden_features_are_those_of_a_world_without_regimes():
    hidden = replace(SMALL, regimes="hidden")
    for a, b in zip(iter_eras(hidden), iter_eras(replace(hidden, null=True)), strict=True):
        np.testing.assert_array_equal(a.features_FN, b.features_FN)


def test_null_has_one_regime_with_equal_weights_and_stationary_structure():
    config = replace(STRUCTURE, null=True)
    world = World(config)
    level_EG = []
    for made in iter_eras(config):
        assert made.regime == 0
        np.testing.assert_allclose(made.expected_G, 1 / np.sqrt(12))
        level_EG.append([mean_pair_correlation(made.features_FN[world.layout.home_F == g]) for g in range(12)])
    assert np.std(level_EG, axis=0).max() < 0.006
    assert np.ptp(np.mean(level_EG, axis=0)) < 0.05


def linear_oracle(world: World, made: MadeEra) -> np.ndarray:
    """The linear part of every group's signal at its mean weight over regimes: knows the world, not the regime."""
    x_FN = made.features_FN - 2.0
    parts = [w @ x_FN[c] for c, w in zip(world.signals.columns, world.signals.linear, strict=True)]
    return world.weights_RG.mean(axis=0) @ np.array([p / p.std() for p in parts])


def test_a_linear_model_scores_as_promised():
    scores = []
    for seed in (0, 1):
        config = replace(FULL, seed=seed, eras=40)
        world = World(config)
        for made in iter_eras(config):
            prediction = pd.DataFrame({"p": linear_oracle(world, made)})
            scores.append(numerai_corr(prediction, pd.Series(made.targets_TN[0], name="y"))["p"])
    assert 0.01 < np.mean(scores) < 0.04
    assert 0.012 < np.std(scores) < 0.03


def test_the_regimes_own_mix_scores_the_signal_to_noise():
    config = replace(FULL, return_noise=0.0, rows=2_000)
    world = World(config)
    scores = [pearson(world.weights_RG[m.regime] @ m.signals_GN, m.targets_TN[0]) for m in iter_eras(config)]
    assert np.mean(scores) == pytest.approx(0.08 * 0.95, abs=0.02)


def test_auxiliary_targets_share_most_of_the_noise():
    config = SynthConfig(eras=30, rows=3_000, features=24, groups=4, snr=0.0)
    main, other = config.targets.index("target_ender_20"), config.targets.index("target_jasper_20")
    shared = np.mean([pearson(m.targets_TN[main], m.targets_TN[other]) for m in iter_eras(config)])
    # Noise of correlation .8, less what five values lose.
    assert 0.68 < shared < 0.8


def test_equal_configurations_give_equal_worlds_and_seeds_differ():
    for a, b, c in zip(iter_eras(SMALL), iter_eras(SMALL), iter_eras(replace(SMALL, seed=6)), strict=True):
        np.testing.assert_array_equal(a.features_FN, b.features_FN)
        np.testing.assert_array_equal(a.targets_TN, b.targets_TN)
        assert a.features_FN.shape != c.features_FN.shape or (a.features_FN != c.features_FN).any()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"eras": 10}, "eras"),
        ({"snr": -1.0}, "snr"),
        ({"persistence": 1.5}, "persistence"),
        ({"groups": 14}, "groups"),
        ({"features": 3}, "features"),
        ({"regimes": "visible"}, "regimes"),
        ({"targets": ("target_ender",)}, "targets"),
        ({"main_target": "target_victor_20"}, "main_target"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_out_of_range_are_named(change, name):
    with pytest.raises(ConfigError, match=f"synth: {name} is"):
        replace(SynthConfig(), **change)
