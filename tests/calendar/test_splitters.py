"""Walk-forward splits and scores by era against brute force, Numerai's own table and numerai-tools."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerai_tools.scoring import correlation_contribution, numerai_corr
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_predict, cross_val_score

from eravane.calendar.splitters import WalkForwardSplit
from eravane.core.errors import ConfigError, DataError
from eravane.scoring.by_era import corr_by_era, mmc_by_era


def test_the_folds_are_those_of_numerais_benchmark_models() -> None:
    era_N = np.arange(1, 1071)
    folds = WalkForwardSplit(0, chunk=156, target="target_ender_20").folds(era_N)
    assert [(fold.train_last, fold.predict_first, fold.predict_last) for fold in folds[:3]] == [
        (148, 157, 312),
        (304, 313, 468),
        (460, 469, 624),
    ]
    assert WalkForwardSplit(0, chunk=156, target="target_cyrusd_60").folds(era_N)[0].train_last == 140


@settings(max_examples=50, deadline=None)
@given(
    eras=st.lists(st.integers(1, 120), min_size=30, max_size=80, unique=True),
    chunk=st.integers(1, 20),
    purge=st.integers(0, 16),
    splits=st.integers(0, 5),
    window=st.sampled_from([0, 15]),
    seed=st.integers(0, 100),
)
def test_training_rows_end_a_purge_before_the_test(
    eras: list[int], chunk: int, purge: int, splits: int, window: int, seed: int
) -> None:
    era_N = np.random.default_rng(seed).permutation(np.repeat(eras, 3))
    splitter = WalkForwardSplit(splits, chunk=chunk, purge=purge, window=window)
    try:
        found = list(splitter.split(np.zeros((len(era_N), 1)), groups=era_N))
    except ConfigError:
        return
    assert len(found) == splitter.get_n_splits(groups=era_N)
    assert splits == 0 or len(found) <= splits
    for train_N, test_N in found:
        assert era_N[test_N].min() - era_N[train_N].max() > purge
        assert not window or era_N[train_N].max() - era_N[train_N].min() < window
        # Whole eras only, on both sides.
        assert len(train_N) == 3 * len(set(era_N[train_N].tolist()))
        assert len(test_N) == 3 * len(set(era_N[test_N].tolist()))
    tested = np.concatenate([era_N[test_N] for _, test_N in found])
    assert len(tested) == len(set(tested.tolist())) * 3
    # Where a gap leaves the newest chunk nothing to train on, it is not tested.
    last_trained = max(eras) - (max(eras) - min(eras)) % chunk - purge - 1
    first_trained = last_trained - window + 1 if window else 1
    assert (max(eras) in tested) == any(first_trained <= era <= last_trained for era in eras)


def test_scikit_learn_takes_the_splits() -> None:
    rng = np.random.default_rng(0)
    x_NC, era_N = rng.normal(size=(600, 3)), np.repeat(np.arange(60), 10)
    y_N = x_NC @ [1.0, 0.0, 0.0]
    scores = cross_val_score(LinearRegression(), x_NC, y_N, groups=era_N, cv=WalkForwardSplit(3, horizon_eras=4))
    np.testing.assert_allclose(scores, 1.0)
    with pytest.raises(ValueError, match="partitions"):
        cross_val_predict(LinearRegression(), x_NC, y_N, groups=era_N, cv=WalkForwardSplit(3, horizon_eras=4))


def test_missing_or_too_few_eras_are_named() -> None:
    with pytest.raises(DataError, match="pass eras as `groups`"):
        next(WalkForwardSplit().split(np.zeros((4, 1))))
    with pytest.raises(ConfigError, match="too few for one walk-forward fold"):
        WalkForwardSplit(chunk=20, purge=8).folds([1, 2, 3])
    with pytest.raises(ConfigError, match="50 training eras"):
        WalkForwardSplit(minimum=50, purge=8).folds(np.arange(60))


def test_no_purge_is_taken_in_silence() -> None:
    era_N = np.arange(100)
    with pytest.raises(ConfigError, match="give horizon_eras or purge"):
        WalkForwardSplit().folds(era_N)
    ways = ({"horizon_eras": 12}, {"target": "target_60"}, {"purge": 16})
    first = [WalkForwardSplit(2, **way).folds(era_N)[0] for way in ways]
    assert first[0] == first[1] == first[2]
    assert first[0].predict_first - first[0].train_last == 17


def test_scores_by_era_are_those_of_numerai_tools() -> None:
    rng = np.random.default_rng(3)
    era_N = rng.permutation(np.repeat([4, 9, 12], 50))
    y_N = rng.choice([0, 0.25, 0.5, 0.75, 1.0], size=150).astype(np.float32)
    p_N, meta_N = rng.normal(size=150), rng.uniform(size=150)
    frame = pd.DataFrame({"p": p_N, "y": y_N, "meta": meta_N, "era": era_N})
    corr, mmc = corr_by_era(y_N, p_N, era_N), mmc_by_era(y_N, p_N, meta_N, era_N)
    assert corr.index.tolist() == [4, 9, 12]
    for era, rows in frame.groupby("era"):
        assert corr[era] == pytest.approx(numerai_corr(rows[["p"]], rows["y"])["p"], abs=1e-9)
        expected = correlation_contribution(rows[["p"]], rows["meta"], rows["y"])["p"]
        assert mmc[era] == pytest.approx(expected, abs=1e-9)
    with pytest.raises(DataError, match="expected 150 values"):
        corr_by_era(y_N[1:], p_N, era_N)
