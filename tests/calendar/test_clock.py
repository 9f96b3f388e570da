"""Lags and folds against the published table and brute force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.calendar.clock import Clock
from eravane.calendar.folds import walk_forward
from eravane.calendar.horizon import Horizon
from eravane.core.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "given_eras", "horizon"),
    [("target_ender_20", 0, 4), ("target_ender_60", 0, 12), ("target", 12, 12), ("target_v4_20", 9, 4)],
)
def test_the_horizon_comes_from_the_suffix(target: str, given_eras: int, horizon: int) -> None:
    assert Horizon.required(target, given_eras) == Horizon(horizon)


@pytest.mark.parametrize("target", ["target", "target_v53", "my_target_7", "target_0"])
def test_a_name_that_tells_nothing_is_asked_about(target: str) -> None:
    assert Horizon.named(target) is None
    with pytest.raises(ConfigError, match=r"set data\.horizon_eras"):
        Horizon.required(target)


@given(eras=st.integers(1, 60))
def test_everything_follows_from_the_horizon(eras: int) -> None:
    span = Horizon(eras)
    assert Horizon.of_days(span.days) == Horizon.named(f"target_x_{5 * eras}") == span
    # A label of era s is made of the returns of the `eras` weeks after it: known a week after the last of them, and one
    # more for the delay of the data.
    assert span.score_lag > span.eras + 1
    assert span.purge >= span.eras
    assert span.tree_lag == span.purge + 1
    # The Bartlett window reaches beyond every autocovariance of labels that overlap.
    assert span.hac_lag >= span.eras
    assert span.overlapping_rounds >= span.days
    assert Clock.of(span).leaking is False
    assert Clock.of(span, score_lag=span.score_lag - 1).leaking


def test_the_published_numbers() -> None:
    """numerai docs (purge 8 and 16); 5 and 13 empty eras in v5.3; a 60-day round overlaps about 64 others."""
    facts = [
        (span.score_lag, span.tree_lag, span.purge, span.hac_lag, span.empty_eras, span.overlapping_rounds)
        for span in (Horizon(4), Horizon(12))
    ]
    assert facts == [(6, 9, 8, 8, 5, 24), (14, 17, 16, 16, 13, 64)]


@pytest.mark.parametrize(("target", "score", "tree"), [("target_ender_20", 6, 9), ("target_ender_60", 14, 17)])
def test_lags_are_those_of_the_tournament(target: str, score: int, tree: int) -> None:
    clock = Clock.of(Horizon.required(target))
    assert (clock.score_lag, clock.tree_lag, clock.leaking) == (score, tree, False)
    assert clock.purge == {9: 8, 17: 16}[tree]


def test_a_later_file_lengthens_the_lags() -> None:
    clock = Clock.of(Horizon(4), observed_lag=13)
    assert (clock.score_lag, clock.tree_lag) == (13, 13)


def test_a_shorter_lag_is_stamped() -> None:
    assert Clock.of(Horizon(4), score_lag=5).leaking
    assert Clock.of(Horizon(4), tree_lag=8).leaking
    assert not Clock.of(Horizon(4), score_lag=6, tree_lag=9).leaking
    assert Clock.of(Horizon(12), score_lag=6, tree_lag=9).leaking


def test_folds_equal_the_published_table() -> None:
    """numerai docs, benchmark models: 156-era chunks, expanding, purge 8."""
    names = [fold.name for fold in walk_forward(1, 1231, chunk=156, tree_lag=9)]
    assert names[:4] == ["1-148>157-312", "1-304>313-468", "1-460>469-624", "1-616>625-780"]
    assert len(names) == 7
    assert walk_forward(1, 1231, chunk=156, tree_lag=17)[0].name == "1-140>157-312"


@settings(max_examples=100, deadline=None)
@given(
    first=st.integers(1, 50),
    eras=st.integers(30, 400),
    chunk=st.integers(5, 160),
    horizon=st.sampled_from([4, 12]),
    newest=st.integers(0, 4),
    window=st.integers(0, 100),
)
def test_no_training_label_overlaps_a_predicted_era(
    first: int, eras: int, chunk: int, horizon: int, newest: int, window: int
) -> None:
    clock = Clock.of(Horizon(horizon))
    last = first + eras - 1
    try:
        folds = walk_forward(first, last, chunk=chunk, tree_lag=clock.tree_lag, newest=newest, window=window)
    except ConfigError:
        assert last < first + chunk or chunk - clock.tree_lag < 0
        return
    for fold in folds:
        # Brute force: the label of era s is made of the returns of eras s+1 .. s+horizon.
        known = {era + step for era in range(fold.train_first, fold.train_last + 1) for step in range(horizon + 1)}
        assert not known & set(range(fold.predict_first, fold.predict_last + 1))
        assert fold.train_first >= first
        assert not window or fold.train_last - fold.train_first < window
    predicted = [era for fold in folds for era in range(fold.predict_first, fold.predict_last + 1)]
    assert predicted == list(range(folds[0].predict_first, last + 1))


def test_too_few_eras_say_what_to_change() -> None:
    with pytest.raises(ConfigError, match=r"zoo\.fold_eras"):
        walk_forward(1, 100, chunk=156, tree_lag=9)
