"""Era slices against pandas and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.calendar.eras import EraFrame, EraIndex, era_label, era_number
from eravane.core.errors import DataError

eras_and_rows = st.dictionaries(st.integers(1, 2000), st.integers(0, 5), min_size=1, max_size=12)


def test_labels_read_as_integers() -> None:
    assert [era_label(era) for era in (1, 999, 1000, 12345)] == ["0001", "0999", "1000", "12345"]
    assert era_number("1000") > era_number("0999")


@pytest.mark.parametrize("label", ["X", "", "1.5", "-3"])
def test_a_label_that_is_no_number_is_refused(label: str) -> None:
    with pytest.raises(DataError, match="not a number"):
        era_number(label)


@settings(max_examples=50, deadline=None)
@given(eras_and_rows, st.integers(0, 2100), st.integers(0, 2100))
def test_spans_equal_a_pandas_filter(counts: dict[int, int], first: int, last: int) -> None:
    labels = sorted(counts)
    index = EraIndex.from_counts(labels, [counts[era] for era in labels])
    rows = pd.Series(np.repeat(labels, [counts[era] for era in labels]))
    inside = np.flatnonzero((rows >= first) & (rows <= last))
    span = index.span(first, last)
    assert list(range(span.start, span.stop)) == inside.tolist()
    part = index.select(first, last)
    assert list(part) == [era for era in labels if first <= era <= last]
    assert part.rows == inside.size
    np.testing.assert_array_equal(part.per_row(), rows.iloc[inside])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=40))
def test_from_rows_equals_a_pandas_count(eras: list[int]) -> None:
    index = EraIndex.from_rows(sorted(eras))
    counted = pd.Series(eras, dtype="int64").value_counts().sort_index()
    assert list(index) == counted.index.tolist()
    assert index.counts.tolist() == counted.tolist()


def test_wrong_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        EraIndex(np.array([2, 1]), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="descend"):
        EraIndex(np.array([1, 2]), np.array([0, 3, 2]))
    with pytest.raises(ValueError, match="order"):
        EraIndex.from_rows([1, 2, 1])
    with pytest.raises(KeyError, match="era 7"):
        EraIndex.from_rows([1, 2]).at(7)


def test_an_era_of_a_frame_is_a_view() -> None:
    values = np.arange(12, dtype=np.int8).reshape(2, 6)
    frame = EraFrame(values, ("a", "b"), EraIndex.from_rows([1, 1, 5, 5, 5, 9]), ids=list("uvwxyz"))
    part = frame.era(5)
    assert np.shares_memory(part.values, values)
    np.testing.assert_array_equal(part.values, [[2, 3, 4], [8, 9, 10]])
    assert part.ids == ["w", "x", "y"]
    with pytest.raises(DataError, match="'c'"):
        frame.positions(["a", "c"])
