"""Facts from outside: what era reads which row, and every way in which a file can be wrong."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import ConfigError
from eravane.gate.facts import OutsideFacts


def written(tmp_path, **columns):
    path = tmp_path / "macro.parquet"
    pd.DataFrame(columns).to_parquet(path)
    return path


@pytest.mark.parametrize("labels", [["0003", "0001", "0002"], [3, 1, 2]])
def test_an_era_reads_the_row_that_was_published(tmp_path, labels):
    path = written(tmp_path, era=labels, rates=[3.0, 1.0, np.nan], breadth=[30, 10, 20])
    facts = OutsideFacts.read(path, lag=2)
    assert facts.names == ("rates", "breadth")
    assert facts.at(3).tolist() == [1.0, 10.0]
    np.testing.assert_array_equal(facts.at(4), [np.nan, 20.0])
    assert facts.at(5).tolist() == [3.0, 30.0]
    assert np.isnan(facts.at(2)).all()
    assert np.isnan(facts.at(6)).all()


def test_rows_that_are_not_yet_published_change_nothing(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20)
    plain = OutsideFacts.read(written(tmp_path, era=np.arange(1, 21), vix=values), lag=3)
    changed = np.where(np.arange(1, 21) > 10 - 3, rng.standard_normal(20), values)
    other = OutsideFacts.read(written(tmp_path, era=np.arange(1, 21), vix=changed), lag=3)
    assert all(plain.at(era) == other.at(era) for era in range(4, 11))
    assert plain.at(11) != other.at(11)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"era": ["0001", "0001"], "vix": [1.0, 2.0]}, "has the era 1 more than once"),
        ({"era": ["0001", "X"], "vix": [1.0, 2.0]}, "era 'X' is not a number"),
        ({"era": [1.5, 2.0], "vix": [1.0, 2.0]}, "column 'era' is double"),
        ({"era": [1, 2], "vix": [1.0, np.inf]}, "column 'vix', row 1 is inf"),
        ({"era": [1, 2], "vix": ["a", "b"]}, "column 'vix' is .*string, first value 'a'; it must be numbers"),
        ({"era": [[1], [2]], "vix": [1.0, 2.0]}, "column 'era' is list"),
        ({"era": [1, 10**12], "vix": [1.0, 2.0]}, "era '1000000000000' is not a number"),
        ({"era": [1, 2]}, "at least one column of numbers"),
        ({"date": [1, 2], "vix": [1.0, 2.0]}, "it needs 'era'"),
    ],
)
def test_mistakes_are_named(tmp_path, columns, message):
    with pytest.raises(ConfigError, match=message):
        OutsideFacts.read(written(tmp_path, **columns), lag=1)


def test_a_file_that_is_missing_or_no_parquet(tmp_path):
    with pytest.raises(ConfigError, match="is missing"):
        OutsideFacts.read(tmp_path / "none.parquet", lag=1)
    (tmp_path / "text.parquet").write_text("era,vix")
    with pytest.raises(ConfigError, match=re.escape("no parquet file")):
        OutsideFacts.read(tmp_path / "text.parquet", lag=1)
