"""The stores behind a run: files whose old eras have changed, and stores of the user's own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from eravane.core.config import PrepareConfig, RunConfig, to_toml
from eravane.core.errors import ChangedDataError, ConfigError
from eravane.data.ingest import ingest
from eravane.data.store.store import EraStore
from eravane.pipeline.batch import run
from eravane.pipeline.week import step
from tests.support import programs

PREPARE = PrepareConfig(missing_eras="impute", impute="mean", outliers="winsorize", indicators=True)


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
    """From the command line: the run is refused, the option that the message names is enough, once and for all."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(micro_data, data)
    prepared = dataclasses.replace(micro_config, prepare=PREPARE)
    (tmp_path / "run.toml").write_text(to_toml(prepared))

    def call(out: str, *options: str) -> tuple[int, str]:
        paths = [str(data), "--out", str(tmp_path / out), "--config", str(tmp_path / "run.toml"), "--cache", str(cache)]
        found = programs.run(["-c", "from eravane.cli import main; main()", "run", *paths, *options])
        return found.returncode, found.stderr

    assert call("first") == (0, "")
    (store,) = (cache / "stores").iterdir()
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
    with pytest.raises(ConfigError, match=r"store that you made; delete it"):
        run(store.path, micro_config, tmp_path / "run", cache=tmp_path / "cache", rebuild_store=True)
    assert EraStore.open(store.path).fingerprint == store.fingerprint
