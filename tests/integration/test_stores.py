"""The stores behind a run: features prepared once, and files whose old eras have changed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.config import PrepareConfig, RunConfig, to_toml
from eravane.core.errors import ChangedDataError, ConfigError
from eravane.data.ingest import ingest
from eravane.data.prepare import frozen_path
from eravane.data.store.store import EraStore
from eravane.pipeline.batch import run
from eravane.pipeline.week import step

PREPARE = PrepareConfig(missing_eras="impute", impute="mean", outliers="winsorize", low=0.1, high=0.9, indicators=True)
RESULTS = ("oof.parquet", "predictions.parquet", "weights.parquet", "scores.parquet", "live_predictions.csv")


def _blank_some(data: Path) -> None:
    """A feature that is missing in some eras of training, of the loop, and live."""
    for name, eras in (("train", {"0005", "0006"}), ("validation", {"0044"}), ("live", {"X"})):
        frame = pd.read_parquet(data / f"{name}.parquet")
        feature = next(column for column in frame if column.startswith("feature"))
        levels = np.where(frame["era"].isin(eras), np.int8(2), frame[feature])
        frame.assign(**{feature: levels}).to_parquet(data / f"{name}.parquet")


@pytest.mark.parametrize("bounds", ["era", "window"])
def test_features_prepared_once_give_the_run_of_features_prepared_on_read(
    bounds: str, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(micro_data, data)
    _blank_some(data)
    prepare = dataclasses.replace(PREPARE, bounds=bounds, window=3)
    on_read = dataclasses.replace(micro_config, prepare=prepare)
    once = dataclasses.replace(micro_config, prepare=dataclasses.replace(prepare, frozen=True))
    one = run(data, on_read, tmp_path / "read", cache=tmp_path / "cache")
    other = run(data, once, tmp_path / "once", cache=tmp_path / "cache")
    for name in RESULTS:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    raw = Path(json.loads((other.path / "manifest.json").read_text())["data"]["store"])
    prepared = EraStore.open(frozen_path(raw, prepare))
    assert prepared.prepared is not None
    assert len(prepared.columns) == 2 * len(EraStore.open(raw).columns)


def test_a_step_freezes_what_the_week_brought(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(micro_data, data)
    frame = pd.read_parquet(data / "validation.parquet")
    frame[frame["era"] < "0048"].to_parquet(data / "validation.parquet")
    once = dataclasses.replace(micro_config, prepare=dataclasses.replace(PREPARE, frozen=True))
    done = run(data, once, tmp_path / "run", cache=tmp_path / "cache")
    raw = Path(json.loads((done.path / "manifest.json").read_text())["data"]["store"])
    assert EraStore.open(frozen_path(raw, PREPARE)).index.last == 47
    frame.to_parquet(data / "validation.parquet")
    assert step(done.path, data, cache=tmp_path / "cache").eras == (48, 49)
    assert EraStore.open(frozen_path(raw, PREPARE)).index.last == 48


def test_freezing_what_does_not_change_is_said(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    plain = dataclasses.replace(micro_config, prepare=PrepareConfig(frozen=True))
    done = run(micro_data, plain, tmp_path / "run", cache=tmp_path / "cache")
    assert any("prepare.frozen changes nothing" in note for note in done.notes)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1


def _change_an_old_era(data: Path) -> str:
    frame = pd.read_parquet(data / "train.parquet")
    feature = next(column for column in frame if column.startswith("feature"))
    levels = frame[feature].to_numpy(copy=True)
    levels[60] = (levels[60] + 1) % 5
    frame.assign(**{feature: levels}).to_parquet(data / "train.parquet")
    return feature


def test_a_changed_old_era_is_named_with_the_store_and_the_way_out(
    micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    """From the command line: the run is refused, the option that the message names mends it, once and for all."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(micro_data, data)
    frozen = dataclasses.replace(micro_config, prepare=dataclasses.replace(PREPARE, frozen=True))
    (tmp_path / "run.toml").write_text(to_toml(frozen))

    def call(out: str, *options: str) -> tuple[int, str]:
        paths = [str(data), "--out", str(tmp_path / out), "--config", str(tmp_path / "run.toml"), "--cache", str(cache)]
        command = [sys.executable, "-c", "from eravane.cli import main; main()", "run", *paths, *options]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.returncode, found.stderr

    assert call("first") == (0, "")
    (store,) = (path for path in (cache / "stores").iterdir() if "." not in path.name)
    feature = _change_an_old_era(data)
    code, message = call("second")
    assert code == 1
    assert "Traceback" not in message
    for words in (f"train.parquet: column '{feature}', era 0002, id 'n", "old era was changed", "--rebuild-store"):
        assert words in message
    assert str(store) in message
    assert not (tmp_path / "second").exists()
    with pytest.raises(ChangedDataError, match=r"old era was changed; .*eravane run .* --rebuild-store"):
        step(tmp_path / "first", data, cache=cache)
    assert call("second", "--rebuild-store") == (0, "")
    assert call("third") == (0, "")
    fresh = ingest(data, tmp_path / "fresh", columns=EraStore.open(store).columns)
    assert EraStore.open(store).fingerprint == fresh.fingerprint


def test_a_run_finds_its_store_from_any_folder(
    micro_data: Path, micro_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was made with relative paths; cron steps it from elsewhere."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(micro_data, "data")
    run(Path("data"), micro_config, Path("run"), cache=Path("cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert not step(tmp_path / "run", tmp_path / "data", cache=tmp_path / "cache").changed


def test_a_store_of_the_users_own_is_not_deleted(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    store = ingest(micro_data, tmp_path / "store")
    with pytest.raises(ConfigError, match=r"store of yours; delete it"):
        run(store.path, micro_config, tmp_path / "run", cache=tmp_path / "cache", rebuild_store=True)
    assert EraStore.open(store.path).fingerprint == store.fingerprint
