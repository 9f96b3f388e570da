"""Runs of older releases: what one began, the present release steps, resumes and exports by the rules it began with."""

from __future__ import annotations

import json
import shutil
import tarfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from eravane.data.store.store import EraStore
from eravane.pipeline import batch
from eravane.pipeline.export import export
from eravane.pipeline.week import step
from eravane.runstate import runfolder
from eravane.runstate.journal import Journal
from eravane.runstate.runfolder import RunFolder, changed_versions, digest_of_all_keys
from eravane.zoo.selection import Outcome
from tests.support.download import FIRST_WEEK, HERE, LAST, LIVE, WEEKS, Download

RELEASE = Path(__file__).parent / "formats" / "0.1.0"
# "auto" follows a rule that is gone: it is asked about, and goes on by another.
RUNS = ("defaults", "levels", "leaves")


class Kept:
    """A run of an older release, as if this machine had made it.

    Args:
        name: its archive.
        folder: where to lay it out.
    """

    def __init__(self, name: str, folder: Path) -> None:
        with tarfile.open(RELEASE / f"{name}.tar.xz") as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter  # which Python 3.11.2 lacks
            archive.extractall(folder)
        self.folder = folder / name
        self.run, self.data = self.folder / "run", self.folder / "data"
        for path in self.run.glob("*.json*"):
            path.write_text(path.read_text().replace(HERE, str(self.folder)))
        self.downloads = Download(RELEASE / "source")

    def step(self, last: int, *, adopt: bool = False) -> Path:
        self.downloads.write(self.data, last)
        step(self.run, self.data, cache=self.folder / "cache", adopt=adopt)
        return self.run


def _content(path: Path) -> Any:
    """What a result file holds.

    `hac_t` is left out, whose scale is another since 0.2.0: it is the t that has 1.96 for 5 %.
    """
    if path.suffix == ".json":
        return json.loads(path.read_text(), object_hook=lambda found: {k: v for k, v in found.items() if k != "hac_t"})
    return (pd.read_csv if path.suffix == ".csv" else pd.read_parquet)(path).to_dict("list")


def _differences(found: Any, expected: Any, place: str = "") -> list[str]:
    """Where two contents differ: numbers by more than another processor's rounding, all else at all.

    BLAS has other kernels, with other orders of summation, for other processors.
    """
    if type(found) is not type(expected):
        return [f"{place}: {found!r}, not {expected!r}"]
    if isinstance(expected, dict) and list(found) == list(expected):
        return [line for key in expected for line in _differences(found[key], expected[key], f"{place}/{key}")]
    if isinstance(expected, list) and len(found) == len(expected):
        return [line for i, item in enumerate(expected) for line in _differences(found[i], item, f"{place}/{i}")]
    if isinstance(expected, float):
        same = found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
    else:
        same = found == expected
    return [] if same else [f"{place}: {found!r}, not {expected!r}"]


def _unlike(folder: Path, expected: Path, names: tuple[str, ...]) -> list[str]:
    return [line for name in names for line in _differences(_content(folder / name), _content(expected / name), name)]


def _same_libraries(kept: Kept) -> None:
    """Skips where other libraries compute than those that the expected results come from."""
    before = json.loads((kept.run / "manifest.json").read_text())["versions"]
    before = {name: version for name, version in before.items() if name not in ("eravane", "python")}
    if changed := changed_versions(before):
        pytest.skip(f"results are repeated under the libraries that made them: {', '.join(changed)}")


def _repeats(kept: Kept, weeks: int) -> None:
    """The weekly steps of 0.1.0 itself; after all of them the results, too."""
    _same_libraries(kept)
    for last in range(FIRST_WEEK + 1, FIRST_WEEK + weeks + 1):
        run = kept.step(last)
        assert not _unlike(run, kept.folder / "week" / str(last), LIVE), last
    if weeks == WEEKS:
        assert not _unlike(kept.run, kept.folder / "last", LAST)


def test_a_season_of_an_older_release_is_stepped_to_its_results(tmp_path: Path) -> None:
    _repeats(Kept("defaults", tmp_path), WEEKS)


@pytest.mark.parametrize("name", RUNS[1:])
def test_weeks_of_other_runs_of_an_older_release_are_stepped_to_their_results(name: str, tmp_path: Path) -> None:
    _repeats(Kept(name, tmp_path), 2)


@pytest.mark.full
@pytest.mark.parametrize("name", RUNS[1:])
def test_a_season_of_other_runs_of_an_older_release(name: str, tmp_path: Path) -> None:
    _repeats(Kept(name, tmp_path), WEEKS)


def test_the_present_gate_takes_over_once_it_is_adopted(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    kept.step(FIRST_WEEK + 1)
    before = json.loads((kept.run / "live.json").read_text())["weights"]
    run = kept.step(FIRST_WEEK + 2, adopt=True)
    assert _unlike(run, kept.folder / "week" / str(FIRST_WEEK + 2), LIVE)
    kept.step(FIRST_WEEK + 3)
    weights = json.loads((run / "live.json").read_text())["weights"]
    assert set(weights) == set(before)
    assert sum(weights.values()) == pytest.approx(1.0)
    adopted = json.loads((run / "manifest.json").read_text())["adopted"]
    assert len(adopted) == 1
    assert "the gate weighs by other experts, mixed by another rule" in adopted[0]["changes"]
    assert RunFolder.open(run).config().edition == EDITION
    record = Journal(run / "checkpoints" / "eras").read(FIRST_WEEK + 3)
    assert {"ridge_all", "screened"} < set(record.comparators)


def test_a_rule_that_is_gone_is_asked_about_once(tmp_path: Path) -> None:
    kept = Kept("auto", tmp_path)
    with pytest.raises(RunError, match=r'loop\.update = "auto" is no more since eravane 0\.2\.0.*step .*--adopt'):
        kept.step(FIRST_WEEK + 1)
    kept.step(FIRST_WEEK + 1, adopt=True)
    kept.step(FIRST_WEEK + 2)
    manifest = json.loads((kept.run / "manifest.json").read_text())
    assert any('loop.update = "auto" is no more' in change for change in manifest["adopted"][0]["changes"])
    assert len(pd.read_csv(kept.run / "live_predictions.csv")) > 10


def _interrupted(name: str, tmp_path: Path) -> Kept:
    """The kept run as a kill before its live era would have left it."""
    kept = Kept(name, tmp_path)
    kept.downloads.write(kept.data, FIRST_WEEK)
    shutil.rmtree(kept.run / "checkpoints" / "000041")
    path = kept.run / "manifest.json"
    path.write_text(path.read_text().replace('"status": "complete"', '"status": "running"'))
    return kept


def _resume(kept: Kept, **how: bool) -> Path:
    return eravane.run(data=kept.data, out=kept.run, resume=True, cache=kept.folder / "cache", **how).path


def _files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".jsonl"}


def test_an_interrupted_run_of_an_older_release_is_resumed_to_its_results(tmp_path: Path) -> None:
    kept = _interrupted("defaults", tmp_path)
    _same_libraries(kept)
    for name in LIVE:
        (kept.run / name).unlink()
    assert not _unlike(_resume(kept), kept.folder / "week" / str(FIRST_WEEK), LIVE)
    kept.step(FIRST_WEEK + 1)
    assert not _unlike(kept.run, kept.folder / "week" / str(FIRST_WEEK + 1), LIVE)


def test_a_resume_that_selects_other_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another XGBoost may, whose out-of-fold scores are others."""
    kept = _interrupted("defaults", tmp_path)
    choose = batch.select

    def other(*given: Any) -> list[Any]:
        verdicts = list(choose(*given))
        place = next(place for place, verdict in enumerate(verdicts) if verdict.selected)
        verdicts[place] = replace(verdicts[place], outcome=Outcome.DROPPED)
        return verdicts

    monkeypatch.setattr(batch, "select", other)
    with pytest.raises(
        RunError, match=r"was begun with the models small\..*, and selection now gives .*start a new run"
    ):
        _resume(kept)


def test_an_interrupted_run_adopts_the_present_rules(tmp_path: Path) -> None:
    kept = _interrupted("auto", tmp_path)
    _same_libraries(kept)
    before = _files(kept.run)
    with pytest.raises(RunError, match=r'loop\.update = "auto" is no more.*run .*--resume --adopt'):
        _resume(kept)
    assert _files(kept.run) == before
    _resume(kept, adopt=True)
    manifest = json.loads((kept.run / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert any('gate.gates = "topk" is no more' in change for change in manifest["adopted"][0]["changes"])
    kept.step(FIRST_WEEK + 1)
    with pytest.raises(ConfigError, match="--adopt is for --resume"):
        eravane.run(data=kept.data, out=tmp_path / "new", adopt=True)


def test_a_resume_on_other_data_is_refused_before_anything_else(tmp_path: Path) -> None:
    kept = _interrupted("defaults", tmp_path)
    ingest(kept.downloads.write(kept.data, FIRST_WEEK + 1), kept.folder / "store")
    before = _files(kept.run)
    with pytest.raises(RunError, match=r"was begun on data \w{16}, and .*store now holds \w{16}"):
        _resume(kept)
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


@pytest.mark.parametrize("adopt", [False, True])
def test_a_run_of_an_older_release_is_exported(adopt: bool, tmp_path: Path) -> None:
    kept = Kept("leaves", tmp_path)
    kept.step(FIRST_WEEK + 1, adopt=adopt)
    done = export(kept.run, tmp_path / "model.pkl", check=True)
    assert done.difference is not None
    assert done.difference < 1e-6


def test_a_store_of_an_older_release_is_read_and_grows_like_a_new_one(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    old = EraStore.open(kept.folder / "store")
    old.verify()
    assert old.fingerprint == json.loads((kept.run / "manifest.json").read_text())["data"]["fingerprint"]
    new = ingest(kept.downloads.write(kept.data, FIRST_WEEK), tmp_path / "new", columns=list(old.columns))
    assert old.fingerprint == new.fingerprint
    assert old.facts == new.facts
    kept.downloads.write(kept.data, FIRST_WEEK + 1)
    grown = [ingest(kept.data, folder) for folder in (kept.folder / "store", tmp_path / "new")]
    assert grown[0].fingerprint == grown[1].fingerprint != new.fingerprint
    # Another Arrow writes other files, so that what 0.1.0 took in counts as changed, with equal rows.
    reports = [replace(store.report, unchanged=()) for store in grown if store.report]
    assert reports[0] == reports[1]


# --- libraries that change under a run ----------------------------------------------------------------------------


def _noted(kept: Kept, **others: str) -> None:
    path = kept.run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"] |= others
    path.write_text(json.dumps(manifest))


def test_other_versions_of_libraries_are_noted_where_predictions_stay(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    _noted(kept, numpy="2.3.0")
    kept.downloads.write(kept.data, FIRST_WEEK + 1)
    done = step(kept.run, kept.data, cache=kept.folder / "cache")
    note = next(note for note in done.notes if note.startswith("versions changed under the run"))
    assert "numpy 2.3.0 to " in note
    assert "its models predict era 41 as before" in note
    assert not step(kept.run, kept.data, cache=kept.folder / "cache").notes


def test_predictions_that_move_with_the_libraries_are_refused(tmp_path: Path) -> None:
    kept = Kept("defaults", tmp_path)
    journal = Journal(kept.run / "checkpoints" / "eras")
    record = journal.read(FIRST_WEEK + 1)
    moved_MN = record.base_MN.copy()
    moved_MN[1, 3] += np.float32(0.01)
    journal.write(replace(record, base_MN=moved_MN))
    _noted(kept, **{"xgboost-cpu": "3.1.0"})
    with pytest.raises(RunError, match=r"xgboost-cpu 3\.1\.0 to .*moved by up to 0\.01; install .*--adopt"):
        kept.step(FIRST_WEEK + 1)
    kept.step(FIRST_WEEK + 1, adopt=True)


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
    assert "prepare.polish = true is no more since eravane 0.3.0: leave it out" in begun.adopt()
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
    assert "the gate counts otherwise" in begun.adopt()
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


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 32},
        {"era": "41"},
        {"weights": {"a": 0.25 * (1 + 3e-9), "b": 0.0}},
        {"weights": {"a": 0.25, "b": 2e-12}},
    ],
)
def test_results_of_another_rule_differ_and_those_of_another_processor_do_not(change: dict[str, Any]) -> None:
    kept = {"era": 41, "rows": 31, "weights": {"a": 0.25, "b": 0.0}}
    rounded = {"era": 41, "rows": 31, "weights": {"a": 0.25 * (1 + 3e-16), "b": 2e-16}}
    assert not _differences(rounded, kept)
    assert len(_differences(rounded | change, kept)) == 1


def test_numbers_of_kept_files_are_finite() -> None:
    """The kept results are results."""
    for name in RUNS:
        with tarfile.open(RELEASE / f"{name}.tar.xz") as archive:
            found = pd.read_parquet(archive.extractfile(f"{name}/last/predictions.parquet"))  # type: ignore[arg-type]
        assert np.isfinite(found["prediction"]).all()
        assert len(found["era"].unique()) >= WEEKS
