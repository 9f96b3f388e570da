"""Imputation and clipping of one era, against pandas, NumPy and scikit-learn, and nothing from later eras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import KNNImputer

from eravane.backend.cpu import CpuBackend
from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.config import PrepareConfig
from eravane.data.prepare import Preparer, joined
from eravane_kernels import cpu, spec

COLUMNS = ("a", "b", "c", "d")
NOTHING = PrepareConfig(impute="none", outliers="none")


def frame(*, floats: bool, eras: int = 8, seed: int = 0) -> EraFrame:
    """Eras 3.. of about 40 rows; column b is missing (2 or NaN) throughout era 5."""
    random = np.random.default_rng(seed)
    counts = 36 + np.arange(eras) % 4 * 3
    values = random.integers(0, 5, (4, counts.sum())).astype(np.int8)
    if floats:
        values = random.normal(0, 1, values.shape).astype(np.float32) ** 3
        values[random.random(values.shape) < 0.1] = np.nan
    index = EraIndex.from_counts(np.arange(3, 3 + eras), counts)
    values[1, index.rows_of(5)] = np.nan if floats else 2
    return EraFrame(values, COLUMNS, index, [f"n{row}" for row in range(index.rows)])


def rows_until(data: EraFrame, era: int, window: int) -> pd.DataFrame:
    """The era and `window` eras before it as a pandas frame, missing as NaN, float64."""
    first = max(data.index.first, era - window)
    return pd.DataFrame(data.values[:, data.index.span(first, era)].T.astype(float), columns=list(COLUMNS))


@pytest.fixture(params=[spec, cpu], ids=["spec", "cpu"])
def ops(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_nothing_to_do_gives_the_very_same_memory(ops: Any) -> None:
    for floats in (False, True):
        data = frame(floats=floats)
        preparer = Preparer(NOTHING, ops)
        assert preparer.keeps(str(data.values.dtype))
        own = preparer.apply(data, 5)
        assert np.shares_memory(own.values, data.values)
        assert own.ids == data.era(5).ids
    levels = Preparer(PrepareConfig(), ops)
    assert levels.keeps("int8")
    assert not levels.keeps("float32")


@pytest.mark.parametrize("bounds", ["era", "window"])
@pytest.mark.parametrize("impute", ["mean", "median", "constant"])
def test_floats_are_filled_and_winsorized(ops: Any, bounds: str, impute: str) -> None:
    config = replace(PrepareConfig(), impute=impute, bounds=bounds, window=3, outliers="winsorize", constant=0.25)
    data = frame(floats=True)
    for era in data.index:
        own = Preparer(config, ops, (0.1, 0.8)).apply(data, era)
        pool = rows_until(data, era, 3 if bounds == "window" else 0)
        raw = pd.DataFrame(data.era(era).values.T.astype(float), columns=list(COLUMNS))
        fill = {"mean": pool.mean(), "median": pool.median(), "constant": pool.mean() * 0 + 0.25}[impute].fillna(0.25)
        low, high = pool.quantile(0.1), pool.quantile(0.8)
        want = raw.fillna(fill.astype(np.float32)).clip(low.fillna(-np.inf), high.fillna(np.inf), axis=1)
        np.testing.assert_allclose(own.values, want.to_numpy().T, rtol=1e-6, atol=1e-7)
        assert own.values.dtype == np.float32
        assert own.columns == COLUMNS


@pytest.mark.parametrize("method", ["std", "mad"])
def test_floats_are_clipped_at_deviations(ops: Any, method: str) -> None:
    config = replace(PrepareConfig(), impute="none", outliers=method, k=1.5)
    data = frame(floats=True)
    own = Preparer(config, ops).apply(data, 6)
    raw = data.era(6).values.astype(float)
    if method == "std":
        centre, spread = np.nanmean(raw, axis=1), np.nanstd(raw, axis=1)
    else:
        centre = np.nanmedian(raw, axis=1)
        spread = np.nanmedian(np.abs(raw - centre[:, None]), axis=1)
    want = np.clip(raw, (centre - 1.5 * spread)[:, None], (centre + 1.5 * spread)[:, None])
    np.testing.assert_allclose(own.values, want, rtol=1e-6, atol=1e-7)
    assert np.isnan(own.values).sum() == np.isnan(raw).sum()


@pytest.mark.parametrize("impute", ["mean", "median", "mode"])
def test_levels_of_absent_features_are_filled_from_the_window(ops: Any, impute: str) -> None:
    config = replace(PrepareConfig(), missing_eras="impute", impute=impute, bounds="window", window=2, indicators=True)
    data = frame(floats=False)
    own = Preparer(config, ops).apply(data, 5)
    pool = np.concatenate([data.era(3).values[1], data.era(4).values[1]]).astype(float)
    counts = np.bincount(pool.astype(int), minlength=5)
    want = {"mean": np.rint(pool.mean()), "median": np.rint(np.median(pool)), "mode": counts.argmax()}[impute]
    assert own.columns == (*COLUMNS, "missing_a", "missing_b", "missing_c", "missing_d")
    assert own.values.dtype == np.int8
    assert set(own.values[1].tolist()) == {int(want)}
    np.testing.assert_array_equal(own.values[[0, 2, 3]], data.era(5).values[[0, 2, 3]])
    np.testing.assert_array_equal(own.values[4:], np.array([[0], [1], [0], [0]]) * np.ones((1, own.index.rows)))


def test_reported_absence_leaves_levels_alone(ops: Any) -> None:
    data = frame(floats=False)
    np.testing.assert_array_equal(Preparer(PrepareConfig(), ops).apply(data, 5).values, data.era(5).values)


def test_levels_can_be_clipped(ops: Any) -> None:
    data = frame(floats=False)
    config = replace(PrepareConfig(), outliers="winsorize")
    own = Preparer(config, ops, (0.3, 0.6)).apply(data, 7)
    raw = data.era(7).values.astype(float)
    low, high = np.rint(np.quantile(raw, 0.3, axis=1)), np.rint(np.quantile(raw, 0.6, axis=1))
    np.testing.assert_array_equal(own.values, np.clip(raw, low[:, None], high[:, None]))


def test_neighbours_fill_floats_as_scikit_learn(ops: Any) -> None:
    data = frame(floats=True)
    config = replace(PrepareConfig(), impute="knn", outliers="none")
    own = Preparer(config, ops).apply(data, 7)
    want = KNNImputer(n_neighbors=5).fit_transform(data.era(7).values.T)
    np.testing.assert_allclose(own.values, want.T, rtol=1e-5)


def test_an_absent_column_gets_the_constant_where_neighbours_know_nothing(ops: Any) -> None:
    data = frame(floats=True)
    own = Preparer(replace(PrepareConfig(), impute="knn", outliers="none", constant=0.5), ops).apply(data, 5)
    np.testing.assert_array_equal(own.values[1], np.float32(0.5))


CONFIGS = st.builds(
    PrepareConfig,
    missing_eras=st.sampled_from(["report", "impute"]),
    impute=st.sampled_from(["none", "mean", "median", "mode", "constant", "knn"]),
    indicators=st.booleans(),
    outliers=st.sampled_from(["auto", "none", "winsorize", "std", "mad"]),
    k=st.just(1.0),
    bounds=st.sampled_from(["era", "window"]),
    window=st.integers(1, 4),
)


@settings(max_examples=50, deadline=None)
@given(config=CONFIGS, floats=st.booleans(), era=st.integers(3, 10), seed=st.integers(0, 9))
def test_later_eras_and_those_before_the_window_change_no_bit(
    config: PrepareConfig, floats: bool, era: int, seed: int
) -> None:
    """The property of the design: what comes later, or lies before the window, does not enter."""
    data, other = frame(floats=floats, seed=seed), frame(floats=floats, seed=seed + 100)
    preparer = Preparer(config, cpu)
    own = preparer.apply(data, era)
    seen = data.index.span(era - preparer.history, era)
    mixed = other.values.copy()
    mixed[:, seen] = data.values[:, seen]
    again = preparer.apply(EraFrame(mixed, COLUMNS, data.index), era)
    assert own.values.tobytes() == again.values.tobytes()
    least = EraFrame(data.values[:, seen], COLUMNS, data.index.select(era - preparer.history, era))
    assert preparer.apply(least, era).values.tobytes() == own.values.tobytes()


@settings(max_examples=30, deadline=None)
@given(config=CONFIGS, floats=st.booleans(), era=st.integers(3, 10))
def test_the_fast_kernels_do_what_the_specification_does(config: PrepareConfig, floats: bool, era: int) -> None:
    data = frame(floats=floats)
    one, other = (Preparer(config, ops).apply(data, era) for ops in (cpu, spec))
    assert one.columns == other.columns
    np.testing.assert_allclose(one.values, other.values, rtol=1e-6)


def test_frames_are_joined_in_order() -> None:
    data = frame(floats=False)
    parts = [
        EraFrame(data.values[:, data.index.span(*span)], COLUMNS, data.index.select(*span))
        for span in ((3, 6), (7, 10))
    ]
    whole = joined(*parts, CpuBackend().joined)
    np.testing.assert_array_equal(whole.values, data.values)
    np.testing.assert_array_equal(whole.index.offsets, data.index.offsets)
