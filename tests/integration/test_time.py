"""The property that everything rests on: what is not known at an era changes no result up to it.

Labels that are not usable at the cut, and everything of later eras, are scrambled; predictions, weights, gates and
trees of every era up to the cut must stay bit for bit. A variant with lags that leak must make the same test fail.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load

from eravane.calendar.eras import EraFrame, era_label
from eravane.calendar.folds import Fold
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.data.features import Features
from eravane.gate.gate import MetaLearner
from eravane.loop.sources import EraSource
from eravane.loop.updates import Updater
from eravane.pipeline.batch import run
from eravane.runstate.checkpoint import Checkpoints
from eravane.runstate.journal import Journal
from eravane_kernels.cpu.levelcolumns import LevelColumns
from tests.support.micro import ERAS

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
    """Every result and state of a run, era by era, as bytes: predictions, weights, gates, trees, the gate's own state.

    What folds and selection came to stands under the loop's first era.
    """
    kept: dict[int, dict[str, bytes]] = {}

    def keep(self: Checkpoints, step: int, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
        kept[step] = {**files, "models": json.dumps(facts["models"], sort_keys=True).encode()}
        save(self, step, files, facts)

    save = Checkpoints.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", keep)
        run(data, config, out / "run", cache=out / "cache")
    for record in Journal(out / "run" / "checkpoints" / "eras"):
        kept[record.era] |= {
            "prediction": record.prediction_N.tobytes(),
            "base": record.base_MN.tobytes(),
            "weights": record.weights_M.tobytes(),
            "open": record.open_M.tobytes(),
        }
    zoo = pd.read_parquet(out / "run" / "zoo.parquet").drop(columns="seconds")
    kept[min(kept)] |= {"zoo": zoo.to_csv().encode(), "oof": (out / "run" / "oof.parquet").read_bytes()}
    return kept


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


def test_what_is_not_known_changes_nothing_where_models_are_scored_before_a_rolling_window(
    micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(micro_config, zoo=dataclasses.replace(micro_config.zoo, window=2))
    before = _journal(micro_data, config, tmp_path / "before")
    cut = max(before) - 2
    assert "versions.past.paid" in load(before[cut]["gate.safetensors"])
    _scramble(micro_data, tmp_path / "data", cut, 0)
    assert _differences(before, _journal(tmp_path / "data", config, tmp_path / "after"), cut) == []


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


def _any_config(base: RunConfig, seed: int) -> RunConfig:
    """A random configuration of everything that has to do with time."""
    rng = np.random.default_rng(seed)

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    loop = {
        "update": one("refit", "append", "leaves", "refit+leaves"),
        "every": int(rng.integers(2, 6)),
        "leaves_every": int(rng.integers(1, 4)),
    }
    prepare = {
        "missing_eras": "impute",
        "impute": one("mean", "median", "mode"),
        "bounds": one("era", "window"),
        "window": int(rng.integers(1, 5)),
        "outliers": one("winsorize", "std", "mad"),
        "k": 1.0,
    }
    zoo = {
        "half_life": one(0.0, 6.0),
        "window": one(0, 4, 12),
        "fold_eras": int(rng.integers(8, 11)),
        "folds": one(0, 2),
    }
    time = {"score_lag": one(None, 7), "tree_lag": one(None, 11)}
    sections = {"loop": loop, "prepare": prepare, "zoo": zoo, "time": time}
    return dataclasses.replace(
        base, **{name: dataclasses.replace(getattr(base, name), **values) for name, values in sections.items()}
    )


def _with_missing_eras(source: Path, target: Path) -> Path:
    """The dataset with some features missing (2 throughout) in some eras."""
    shutil.copytree(source, target)
    rng = np.random.default_rng(0)
    for name in HISTORY:
        frame = pd.read_parquet(target / name)
        for column in [column for column in frame if column.startswith("feature_")][::3]:
            missing = rng.choice(frame["era"].unique(), 4, replace=False)
            frame[column] = frame[column].mask(frame["era"].isin(missing), 2).astype(np.int8)
        frame.to_parquet(target / name)
    return target


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(3, 15))])
def test_the_property_holds_whatever_the_configuration(
    seed: int, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    config = _any_config(micro_config, seed)
    data = _with_missing_eras(micro_data, tmp_path / "source")
    before = _journal(data, config, tmp_path / "before")
    cut = int(np.random.default_rng(seed).choice([era for era in before if era < max(before)]))
    _scramble(data, tmp_path / "data", cut, seed)
    assert _differences(before, _journal(tmp_path / "data", config, tmp_path / "after"), cut) == []


def _leak_into_folds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fold, "train_last_at", lambda self, lag: self.predict_first + 6)


def _leak_into_selection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timeline, "selection_end", property(lambda self: self.loop_start - 1))


def _leak_into_past_scores(patch: pytest.MonkeyPatch) -> None:
    """Refitted models are scored in the newest eras, whose labels are not known yet."""
    patch.setattr(Updater, "eras_before", lambda self, spec, era: range(era - 3, min(era, ERAS - 5)))
    patch.setattr(MetaLearner, "resolved", property(lambda self: range(1, 100)))


def _leak_into_maps(patch: pytest.MonkeyPatch) -> None:
    """The gate measures an era with the rows of the one after it."""

    honest = EraSource.raw

    def next_one(self: EraSource) -> Any:
        later = self.era + 1
        return self.features.raw(later) if later in self.features.store.index else honest(self)

    patch.setattr(EraSource, "raw", next_one)


def _leak_into_preparation(patch: pytest.MonkeyPatch) -> None:
    """Levels are bounded by those of the first row of the next era."""
    honest = Features.era

    def leaking(self: Features, era: int, columns: Sequence[str]) -> EraFrame:
        frame = honest(self, era, columns)
        if era + 1 not in self.store.index:
            return frame
        bound_C = honest(self, era + 1, columns).values[:, 0]
        return dataclasses.replace(frame, values=np.minimum(frame.values, bound_C[:, None]))

    patch.setattr(Features, "era", leaking)
    patch.setattr(Features, "levels", lambda *_, **__: None)  # models read levels where they lie else


def _leak_into_levels(patch: pytest.MonkeyPatch) -> None:
    """The same in levels that models read where they lie."""
    honest = Features.levels

    def leaking(
        self: Features, columns: Sequence[str], first: int, last: int, *, every: int = 1
    ) -> LevelColumns | None:
        levels = honest(self, columns, first, last, every=every)
        if levels is None or first != last or last + 1 not in self.store.index:
            return levels
        bound_C = self.era(last + 1, columns).values[:, 0]
        return LevelColumns.unchecked(np.minimum(levels.matrix(), bound_C[:, None]))

    patch.setattr(Features, "levels", leaking)


@pytest.mark.parametrize(
    ("leak", "eras_in"),
    # The gate looks at an era only once it is trained.
    [
        (_leak_into_folds, 0),
        (_leak_into_selection, 0),
        (_leak_into_past_scores, 10),
        (_leak_into_maps, 10),
        (_leak_into_preparation, 0),
        (_leak_into_levels, 0),
    ],
)
def test_a_leak_anywhere_is_caught(
    leak: Callable[[pytest.MonkeyPatch], None],
    eras_in: int,
    micro_data: Path,
    micro_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leak(monkeypatch)
    before = _journal(micro_data, micro_config, tmp_path / "before")
    cut = micro_config.time.loop_start + eras_in
    _scramble(micro_data, tmp_path / "data", cut, 1)
    assert _differences(before, _journal(tmp_path / "data", micro_config, tmp_path / "after"), cut) != []
