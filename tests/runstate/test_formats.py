"""Runs of older releases: what one began, the present release steps, resumes and exports once its user has agreed."""

from __future__ import annotations

import json
import shutil
import tarfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eravane
from eravane.core import config as configuration
from eravane.core import editions, settings
from eravane.core.config import EDITION, RunConfig, parse_config, to_toml
from eravane.core.editions import Change, Retired
from eravane.core.errors import ConfigError, RunError, StoreError
from eravane.core.settings import Builder, setting
from eravane.data.ingest import ingest
from eravane.pipeline.export import export
from eravane.pipeline.week import step
from eravane.runstate import runfolder
from eravane.runstate.runfolder import RunFolder, digest_of_all_keys
from tests.support.download import FIRST_WEEK, HERE, LIVE, WEEKS, Download

RELEASE = Path(__file__).parent / "formats" / "0.1.0"
# "auto" follows a rule that is gone: it is asked about, and goes on by another.
RUNS = ("defaults", "levels")


class Kept:
    """A run of an older release, as if this machine had made it.

    Args:
        name: its archive.
        folder: where to lay it out.
    """

    def __init__(self, name: str, folder: Path) -> None:
        with tarfile.open(RELEASE / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        self.folder = folder / name
        self.run, self.data = self.folder / "run", self.folder / "data"
        for path in self.run.glob("*.json*"):
            path.write_text(path.read_text().replace(HERE, str(self.folder)))
        self._downloads = Download(RELEASE / "source")

    def step(self, last: int, *, adopt: bool = False) -> Path:
        self._downloads.write(self.data, last)
        step(self.run, self.data, cache=self.folder / "cache", adopt=adopt)
        return self.run


def _goes_on(kept: Kept, weeks: int) -> None:
    """The gate decides otherwise than that of 0.1.0, so the run asks once; base models go on to their own scores."""
    with pytest.raises(RunError, match=r"the gate weighs by other experts.*--adopt"):
        kept.step(FIRST_WEEK + 1)
    for last in range(FIRST_WEEK + 1, FIRST_WEEK + weeks + 1):
        run = kept.step(last, adopt=last == FIRST_WEEK + 1)
        before = pd.read_csv(kept.folder / "week" / str(last) / LIVE[0])
        found = pd.read_csv(run / LIVE[0])
        assert found["id"].tolist() == before["id"].tolist(), last
        assert found["prediction"].between(0, 1, inclusive="neither").all(), last
        weights = json.loads((run / "live.json").read_text())["weights"]
        assert sum(weights.values()) == pytest.approx(1.0)
    if weeks == WEEKS:
        found, before = (pd.read_parquet(place / "scores.parquet") for place in (kept.run, kept.folder / "last"))
        same = [name for name in before if name not in ("ensemble", "ridge", "change_points", "best_single")]
        assert len(same) > 4
        pd.testing.assert_frame_equal(found[same], before[same], check_exact=False, rtol=1e-6)


def test_a_season_of_an_older_release_goes_on_once_its_new_gate_is_adopted(tmp_path: Path) -> None:
    _goes_on(Kept("defaults", tmp_path), WEEKS)


@pytest.mark.full
@pytest.mark.parametrize("name", RUNS[1:])
def test_a_season_of_other_runs_of_an_older_release(name: str, tmp_path: Path) -> None:
    _goes_on(Kept(name, tmp_path), WEEKS)


def test_a_rule_that_is_gone_is_asked_about_once(tmp_path: Path) -> None:
    kept = Kept("auto", tmp_path)
    with pytest.raises(RunError, match=r'loop\.update = "auto" is no more since eravane 0\.2\.0.*--adopt'):
        kept.step(FIRST_WEEK + 1)
    kept.step(FIRST_WEEK + 1, adopt=True)
    kept.step(FIRST_WEEK + 2)
    manifest = json.loads((kept.run / "manifest.json").read_text())
    assert any('loop.update = "auto" is no more' in change for change in manifest["adopted"][0]["changes"])
    assert len(pd.read_csv(kept.run / "live_predictions.csv")) > 10


def _interrupted(tmp_path: Path) -> Kept:
    """The kept run as a kill two eras before its end would have left it."""
    kept = Kept("defaults", tmp_path)
    kept._downloads.write(kept.data, FIRST_WEEK)
    shutil.rmtree(kept.run / "checkpoints" / "000041")
    path = kept.run / "manifest.json"
    path.write_text(path.read_text().replace('"status": "complete"', '"status": "running"'))
    return kept


def _files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".jsonl"}


def test_an_interrupted_run_whose_rules_are_gone_is_left_to_its_release(tmp_path: Path) -> None:
    kept = _interrupted(tmp_path)
    before = _files(kept.run)
    with pytest.raises(
        RunError, match=r"the gate weighs by other experts.*cannot adopt the present rules: start a new"
    ):
        eravane.run(data=kept.data, out=kept.run, resume=True, cache=kept.folder / "cache")
    assert _files(kept.run) == before


def test_a_resume_on_other_data_is_refused_before_anything_else(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    RunFolder.open(kept.run).adopt()
    path = kept.run / "manifest.json"
    path.write_text(path.read_text().replace('"status": "complete"', '"status": "running"'))
    ingest(kept._downloads.write(kept.data, FIRST_WEEK + 1), kept.folder / "store")
    before = _files(kept.run)
    with pytest.raises(RunError, match=r"was begun on data \w{16}, and .*store now holds \w{16}"):
        eravane.run(data=kept.data, out=kept.run, resume=True, cache=kept.folder / "cache")
    assert _files(kept.run) == before


def test_one_folder_takes_one_program(tmp_path: Path) -> None:
    out, config = tmp_path / "run", RunConfig()
    with RunFolder.held(out, config, resume=False) as (folder, _):
        with pytest.raises(StoreError, match="another process is writing"), RunFolder.held(out, config, resume=False):
            pass
        with pytest.raises(StoreError, match="another process is writing"), RunFolder.held(out, config, resume=True):
            pass
        assert folder.config() == config
    with pytest.raises(RunError, match="exists already"), RunFolder.held(out, config, resume=False):
        pass
    assert (out / "run.toml").is_file()


def test_a_run_of_an_older_release_is_exported(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    kept.step(FIRST_WEEK + 1, adopt=True)
    done = export(kept.run, tmp_path / "model.pkl", check=True)
    assert done.difference is not None
    assert done.difference < 1e-6


def test_defaults_of_the_first_edition_are_those_of_the_release() -> None:
    """A changed default, or a new key that changes results, needs `earlier=` in `setting`."""
    released = tomllib.loads((RELEASE / "defaults.toml").read_text())
    found = tomllib.loads(to_toml(parse_config({"edition": 1})))
    assert found.pop("edition") == 1
    for section, keys in released.items():
        if not isinstance(keys, dict):
            assert found[section] == keys
            continue
        kept = {key: value for key, value in keys.items() if f"{section}.{key}" not in editions.RETIRED}
        assert {key: found[section].get(key) for key in kept} == kept, section


def test_the_digest_of_the_first_edition_knows_no_later_keys() -> None:
    assert parse_config({"edition": 1}).digest() == configuration.digest_of({})
    old = tomllib.loads((RELEASE / "defaults.toml").read_text())
    assert digest_of_all_keys(old) == "49af8eaa1a13"


# --- a later program, played by changing the tables of this one ---------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(runfolder, "CHANGES", ())
    folder = RunFolder.create(tmp_path / "run", parse_config({"edition": 1, "gate": {"steps": 7}}))
    folder.write_json("manifest.json", {"status": "complete"})
    text = (folder.path / "run.toml").read_text().replace("edition = 1\n", "")
    (folder.path / "run.toml").write_text(text)
    return folder


@dataclass(frozen=True)
class Later:
    """Settings of a later release: a new key, and another default of an old one."""

    edition: int = setting(3, "")
    new: bool = setting(True, "", earlier={2: False})
    old: int = setting(9, "", earlier={1: 5, 2: 7})


def test_keys_that_are_left_out_keep_the_meaning_of_the_runs_beginning() -> None:
    assert Builder("run.toml", 1).read(Later, {}).config == Later(edition=3, new=False, old=5)
    assert Builder("run.toml", 2).read(Later, {"old": 1}).config == Later(edition=3, new=False, old=1)
    assert Builder("run.toml", 3).read(Later, {}).config == Later(edition=3, new=True, old=9)


def test_the_digest_of_an_old_run_knows_no_newer_keys() -> None:
    assert configuration.unlike_first(Later(edition=1, new=False, old=5)) == {}
    assert configuration.unlike_first(Later(edition=3, new=True, old=5)) == {"edition": 3, "new": True}


def test_a_renamed_key_is_translated(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun.config().digest()
    path = begun.path / "run.toml"
    path.write_text(path.read_text().replace("steps = 7", "gradient_steps = 7"))
    with pytest.raises(ConfigError, match=r"unknown key 'gate\.gradient_steps'"):
        begun.config()
    monkeypatch.setitem(settings.RETIRED, "gate.gradient_steps", Retired("0.3.0", "write steps", renamed="steps"))
    assert begun.config().digest() == before
    assert begun.reading().notes == ("gate.gradient_steps is called gate.steps since eravane 0.3.0",)


def test_a_removed_key_that_changed_nothing_is_dropped(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun.config().digest()
    path = begun.path / "run.toml"
    path.write_text(path.read_text() + "\n[prepare]\n" if "[prepare]" not in path.read_text() else path.read_text())
    path.write_text(path.read_text().replace("[prepare]\n", "[prepare]\npolish = false\n"))
    gone = Retired("0.3.0", "leave it out", same=lambda value, _section: not value)
    monkeypatch.setitem(settings.RETIRED, "prepare.polish", gone)
    assert begun.config().digest() == before
    path.write_text(path.read_text().replace("polish = false", "polish = true"))
    with pytest.raises(RunError, match=r"prepare\.polish = true is no more since eravane 0\.3\.0.*step .*--adopt"):
        begun.config()
    with pytest.raises(ConfigError, match=r"prepare\.polish = true is no more since eravane 0\.3\.0: leave it out"):
        parse_config({"prepare": {"polish": True}})
    assert begun.adopt() == ("prepare.polish = true is no more since eravane 0.3.0: leave it out",)
    assert begun.config() == replace(begun.config(), edition=EDITION)
    assert begun.adopt() == ()


def test_a_removed_value_is_asked_about_once(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun.path / "run.toml"
    path.write_text(path.read_text().replace('update = "refit+leaves"', 'update = "dream"'))
    gone = Retired("0.3.0", 'write "refit"', values=("dream",), becomes="refit")
    monkeypatch.setitem(settings.RETIRED, "loop.update", gone)
    digests = begun.known_digests()
    with pytest.raises(RunError, match=r'loop\.update = "dream" is no more'):
        begun.config()
    begun.adopt()
    assert begun.config().loop.update == "refit"
    assert set(digests) <= set(begun.known_digests())


def test_a_change_of_results_is_asked_about_once(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    change = Change(EDITION, "the gate counts otherwise", lambda config: config.gate.steps == 7)
    monkeypatch.setattr(runfolder, "CHANGES", (change,))
    with pytest.raises(RunError, match="results would change: the gate counts otherwise"):
        begun.config()
    assert begun.adopt() == ("the gate counts otherwise",)
    assert begun.config().edition == EDITION
    assert RunFolder.create(begun.path.parent / "new", RunConfig()).config() == RunConfig()


def test_a_newer_edition_is_refused_by_name(begun: RunFolder) -> None:
    path = begun.path / "run.toml"
    path.write_text("edition = 99\n" + path.read_text())
    with pytest.raises(ConfigError, match="edition 99, written by a newer eravane"):
        begun.config()


def test_a_default_that_changed_twice_means_what_it_meant_then() -> None:
    earlier = {1: "first", 3: "second"}
    meant = [editions.meaning_left_out("today", earlier, edition) for edition in (1, 2, 3, 4)]
    assert meant == ["first", "second", "second", "today"]


def test_weights_differ_where_a_key_changes() -> None:
    """The comparison of digests can fail."""
    assert parse_config({"edition": 1, "gate": {"steps": 7}}).digest() != parse_config({"edition": 1}).digest()
    assert parse_config({"edition": 1, "compute": {"workers": 3}}).digest() == parse_config({"edition": 1}).digest()


def test_a_store_that_moved_away_is_named(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    shutil.rmtree(kept.folder / "store")
    RunFolder.open(kept.run).adopt()
    with pytest.raises(RunError, match=r"the run's store .* is gone; make it again with `eravane ingest"):
        kept.step(FIRST_WEEK + 1)


def test_numbers_of_kept_files_are_finite() -> None:
    """The kept results are results."""
    for name in RUNS:
        with tarfile.open(RELEASE / f"{name}.tar.xz") as archive:
            found = pd.read_parquet(archive.extractfile(f"{name}/last/predictions.parquet"))  # type: ignore[arg-type]
        assert np.isfinite(found["prediction"]).all()
        assert len(found["era"].unique()) >= WEEKS
