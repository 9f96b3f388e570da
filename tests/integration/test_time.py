"""The property that everything rests on: what is not known at an era changes nothing that was said up to it.

Labels that are not usable at the cut, and everything of later eras, are scrambled; predictions, weights, gates and
trees of every era up to the cut must stay bit for bit. A variant with lags that leak must make the same test fail.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.batch import run
from eravane.config import RunConfig
from eravane.eras import era_label
from eravane.loop.journal import Journal

SCORE_LAG = 6
HISTORY = ("train.parquet", "validation.parquet")


def _scramble(source: Path, target: Path, cut: int, seed: int) -> None:
    """Copy a dataset; replace every label that is not usable at `cut`, and everything of later eras."""
    shutil.copytree(source, target)
    rng = np.random.default_rng(seed)
    for name in HISTORY:
        frame = pd.read_parquet(target / name)
        era = frame["era"].astype(int).to_numpy()
        features = [column for column in frame if column.startswith("feature_")]
        targets = [column for column in frame if column.startswith("target")]
        later, unknown = era > cut, era > cut - SCORE_LAG
        frame.loc[later, features] = rng.integers(0, 5, (later.sum(), len(features))).astype(np.int8)
        for column in targets:
            values = frame[column].to_numpy(copy=True)
            hidden = unknown & ~np.isnan(values)
            values[hidden] = rng.permutation(np.linspace(0, 1, 5)[rng.integers(0, 5, hidden.sum())])
            frame[column] = values
        order = np.lexsort((rng.random(len(frame)) * later, era))
        frame.iloc[order].to_parquet(target / name)


def _journal(data: Path, config: RunConfig, out: Path) -> dict[int, dict[str, bytes]]:
    """Everything a run said, era by era, as bytes."""
    run(data, config, out / "run", cache=out / "cache")
    return {
        record.era: {
            "prediction": record.prediction_N.tobytes(),
            "base": record.base_MN.tobytes(),
            "weights": record.weights_M.tobytes(),
            "open": record.open_M.tobytes(),
        }
        for record in Journal(out / "run" / "checkpoints" / "eras")
    }


def _differences(before: dict[int, dict[str, bytes]], after: dict[int, dict[str, bytes]], cut: int) -> list[str]:
    return [
        f"{what} of era {era_label(era)}"
        for era in sorted(before)
        if era <= cut
        for what in before[era]
        if before[era][what] != after[era][what]
    ]


@pytest.fixture(scope="module")
def honest(
    micro_data: Path, micro_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, bytes]]:
    return _journal(micro_data, micro_config, tmp_path_factory.mktemp("honest"))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_known_changes_nothing(
    seed: int, honest: dict[int, dict[str, bytes]], micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    # The first cut is the loop's first era: what folds and selection may see ends there.
    cut = micro_config.time.loop_start if seed == 0 else int(np.random.default_rng(seed).choice(sorted(honest)))
    _scramble(micro_data, tmp_path / "data", cut, seed)
    assert _differences(honest, _journal(tmp_path / "data", micro_config, tmp_path), cut) == []


def test_later_eras_do_change(
    honest: dict[int, dict[str, bytes]], micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    """The scrambling is seen as soon as it may be: otherwise the test above could not fail."""
    cut = micro_config.time.loop_start + 2
    _scramble(micro_data, tmp_path / "data", cut, 0)
    after = _journal(tmp_path / "data", micro_config, tmp_path)
    assert _differences(honest, after, cut) == []
    assert _differences(honest, after, cut + 1) != []


@pytest.mark.parametrize("leak", [{"score_lag": SCORE_LAG - 1}, {"tree_lag": 1}], ids=["gate", "trees"])
def test_a_planted_leak_is_caught(
    leak: dict[str, int], micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    leaking = dataclasses.replace(micro_config, time=dataclasses.replace(micro_config.time, **leak))
    before = _journal(micro_data, leaking, tmp_path / "before")
    cut = micro_config.time.loop_start + 2 * micro_config.loop.every  # trees are updated before it
    _scramble(micro_data, tmp_path / "data", cut, 1)
    after = _journal(tmp_path / "data", leaking, tmp_path / "after")
    assert _differences(before, after, cut) != []
    assert pd.read_json(tmp_path / "before" / "run" / "metrics.json", typ="series")["leaking"]
