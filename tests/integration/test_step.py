"""Production weeks: what the weekly steps of a run come to is what one replay over the final data comes to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane import api
from eravane.core.config import RunConfig, parse_config
from eravane.core.errors import ChangedDataError, ConfigError, RunError, StoreError
from eravane.core.files import exclusive
from eravane.data.ingest import ingest
from eravane.pipeline.batch import run
from eravane.pipeline.week import WeekReport, step
from eravane.runstate.journal import Journal
from eravane.synth import SynthConfig, synthesise
from tests.support.weeks import Weeks

FIRST_WEEK, WEEKS = 40, 24
CONFIG = {
    "data": {"feature_sets": ["small", "all"]},
    "time": {"loop_start": 32},
    "zoo": {"trees": 3, "fold_eras": 10, "folds": 2, "minimum_eras": 2, "params": {"max_depth": 2, "eta": 0.3}},
    "selection": {"most": 3, "minimum_corr": -1.0},
    "gate": {"warmup": 8, "seeds": 1, "steps": 6, "refit_every": 6},
    "loop": {"update": "append", "every": 4, "append_trees": 2},
    "compute": {"device": "cpu"},
}
# What goes wrong, by the week's newest era.
TROUBLE: dict[int, dict[str, object]] = {
    43: {"late": 1},
    44: {"late": 2},
    47: {"missing": (41,)},
    48: {"missing": (41,)},
    49: {"missing": (41,)},
    52: {"live_seed": 1},
    53: {"corrected": {46: 1}},
    58: {"corrected": {46: 1, 48: 2}, "late": 4},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weeks") / "source"
    return synthesise(
        out, SynthConfig(main_target="target_ender_20", eras=75, rows=40, features=16, groups=3, seed=5, snr=0.5)
    )


@pytest.fixture(scope="module")
def weeks(source: Path) -> Weeks:
    return Weeks(source)


def _state(folder: Path) -> dict[str, bytes]:
    """Every file of a run's state and every file that follows from it."""
    newest = max((folder / "checkpoints").glob("[0-9]*"))
    paths = [
        *newest.glob("gate.*"),
        *(folder / "checkpoints" / "eras").iterdir(),
        *(folder / "checkpoints" / "resolved").iterdir(),
        *(folder / name for name in ("models/index.json", "predictions.parquet", "weights.parquet", "scores.parquet")),
        *(folder / name for name in ("live_predictions.csv", "base_predictions.parquet", "live.json")),
    ]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    manifest = json.loads((newest / "manifest.json").read_text())
    return {**found, "models": json.dumps(manifest["facts"], sort_keys=True).encode()}


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _weekly(
    weeks: Weeks, config: RunConfig, folder: Path, count: int, trouble: dict[int, dict[str, object]]
) -> list[WeekReport]:
    """Run on the first week, step on the others; one week is missed, one is stepped twice, corrections last."""
    run(weeks.write(folder / "data", FIRST_WEEK), config, folder / "run", cache=folder / "cache")
    reports: list[WeekReport] = []
    corrected: dict[int, int] = {}
    for last in range(FIRST_WEEK + 1, FIRST_WEEK + count + 1):
        wrong = dict(trouble.get(last, {}))
        corrected |= wrong.pop("corrected", {})  # type: ignore[arg-type]
        if last == FIRST_WEEK + 5:
            continue
        data = weeks.write(folder / "data", last, corrected=corrected, **wrong)  # type: ignore[arg-type]
        reports.append(step(folder / "run", data, cache=folder / "cache"))
    return reports


def _replay(folder: Path) -> Path:
    """A fresh run over the final data that knows each label since when the steps knew it."""
    out = folder / "replay"
    api.run(data=folder / "data", out=out, cache=folder / "other", replay_of=folder / "run")
    return out


@pytest.mark.parametrize("update", ["append", "refit+leaves"])
def test_steps_end_where_a_replay_ends(update: str, weeks: Weeks, tmp_path: Path) -> None:
    config = parse_config({**CONFIG, "loop": {**CONFIG["loop"], "update": update, "leaves_every": 2}})  # type: ignore[dict-item]
    count = WEEKS if update == "append" else 10
    trouble = TROUBLE if update == "append" else {43: TROUBLE[43], 47: TROUBLE[47], 49: {"corrected": {40: 3}}}
    reports = _weekly(weeks, config, tmp_path, count, trouble)
    assert all(report.changed for report in reports)
    assert sum(len(report.eras) for report in reports) > count  # the missed week was caught up
    assert [report.again_from for report in reports if report.corrected] != []
    found, expected = _state(tmp_path / "run"), _state(_replay(tmp_path))
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_replay_that_ignores_the_arrivals_differs(weeks: Weeks, tmp_path: Path) -> None:
    """The comparison above can fail: labels that came late would have been used earlier."""
    config = parse_config(CONFIG)
    _weekly(weeks, config, tmp_path, 8, {43: {"late": 2}, 44: {"late": 3}, 46: {"late": 4}})
    known_at = json.loads((tmp_path / "run" / "known_at.json").read_text())
    known_at["known_at"] = {}
    expected = _state(tmp_path / "run")
    (tmp_path / "run" / "known_at.json").write_text(json.dumps(known_at))
    found = _state(_replay(tmp_path))
    assert [name for name in expected if name.startswith("checkpoints/eras") and found[name] != expected[name]] != []


@pytest.fixture(scope="module")
def started(weeks: Weeks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("started")
    run(weeks.write(folder / "data", FIRST_WEEK), parse_config(CONFIG), folder / "run", cache=folder / "cache")
    return folder


def test_a_step_right_after_the_run_changes_nothing(started: Path) -> None:
    before = _everything(started / "run")
    report = step(started / "run", started / "data", cache=started / "cache")
    assert not report.changed
    assert report.eras == ()
    assert report.live_era == FIRST_WEEK + 1
    assert _everything(started / "run") == before


def test_a_week_and_the_same_week_again(started: Path, weeks: Weeks) -> None:
    live = (started / "run" / "live_predictions.csv").read_bytes()
    data = weeks.write(started / "newer", FIRST_WEEK + 1)
    report = step(started / "run", data, cache=started / "cache")
    assert report.eras == (FIRST_WEEK + 2,)
    assert report.arrived["target"] == (FIRST_WEEK + 1 - 5,)
    assert json.loads(json.dumps(report.as_dict()))["changed"]
    assert (started / "run" / "live_predictions.csv").read_bytes() != live
    ids = pd.read_parquet(data / "live.parquet").index
    assert set(pd.read_csv(started / "run" / "live_predictions.csv")["id"]) == set(ids)
    scores = pd.read_parquet(started / "run" / "scores.parquet").set_index("era")
    assert scores.loc["0036", "known_at"] == FIRST_WEEK + 2
    assert scores.index.tolist() == [f"{era:04d}" for era in range(32, 37)]
    prototypes, missing = (pd.read_parquet(started / "run" / f"{name}.parquet") for name in ("prototypes", "missing"))
    assert prototypes["era"].tolist() == scores.index.tolist()
    assert missing["era"].iloc[-1] == f"{FIRST_WEEK + 1:04d}"
    manifest = json.loads((started / "run" / "manifest.json").read_text())
    assert manifest["data"]["path"] == str(data)  # where `export --check` and `diagnose` look for this week's files
    counted = (scores.index.astype(int) >= manifest["periods"]["report_start"]).sum()
    few = f"Few eras: The headline rests on {counted} scored eras"
    assert any(text.startswith(few) for text in manifest["warnings"]), manifest["warnings"]
    assert few.removeprefix("Few eras: ") in (started / "run" / "report.html").read_text()
    before = _everything(started / "run")
    assert not step(started / "run", data, cache=started / "cache").changed
    assert _everything(started / "run") == before


def test_other_live_rows_of_the_same_era_are_predicted_anew(started: Path, weeks: Weeks) -> None:
    data = weeks.write(started / "data", FIRST_WEEK + 2)
    step(started / "run", data, cache=started / "cache")
    expected = Journal(started / "run" / "checkpoints" / "eras").read(FIRST_WEEK + 3)
    data = weeks.write(started / "data", FIRST_WEEK + 2, live_seed=7)
    report = step(started / "run", data, cache=started / "cache")
    assert report.eras == (FIRST_WEEK + 3,)
    ids = pd.read_parquet(data / "live.parquet").index
    assert set(pd.read_csv(started / "run" / "live_predictions.csv")["id"]) == set(ids)
    data = weeks.write(started / "data", FIRST_WEEK + 2)
    step(started / "run", data, cache=started / "cache")
    found = Journal(started / "run" / "checkpoints" / "eras").read(FIRST_WEEK + 3)
    np.testing.assert_array_equal(found.prediction_N, expected.prediction_N)


@pytest.mark.parametrize("store", ["the run's", "a new one"])
def test_a_target_that_becomes_another_one_stops_the_step(
    started: Path, weeks: Weeks, tmp_path: Path, store: str
) -> None:
    """As v5.3 did: `target` repeats target_ender_60 where it repeated target_ender_20 the week before."""
    data = weeks.write(tmp_path / "data", FIRST_WEEK + 4)
    for name in ("train", "validation"):
        frame = pd.read_parquet(data / f"{name}.parquet")
        frame.assign(target=frame["target_ender_60"]).to_parquet(data / f"{name}.parquet")
    if store == "a new one":
        ingest(data, tmp_path / "store")
        data = tmp_path / "store"
    before = _everything(started / "run")
    with pytest.raises(ChangedDataError, match="'target' equalled 'target_ender_20' and now equals 'target_ender_60'"):
        step(started / "run", data, cache=started / "cache")
    assert _everything(started / "run") == before


def test_two_steps_cannot_run_at_once(started: Path) -> None:
    with exclusive(started / "run"), pytest.raises(StoreError, match="another process"):
        step(started / "run", started / "data", cache=started / "cache")


def test_what_cannot_be_stepped(started: Path, weeks: Weeks, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        step(tmp_path, started / "data", cache=tmp_path)
    ended = parse_config({**CONFIG, "data": {**CONFIG["data"], "last_era": FIRST_WEEK}})  # type: ignore[dict-item]
    run(weeks.write(tmp_path / "data", FIRST_WEEK), ended, tmp_path / "run", cache=started / "cache")
    with pytest.raises(ConfigError, match="ends at era"):
        step(tmp_path / "run", tmp_path / "data", cache=tmp_path)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(RunError, match="not finished"):
        step(tmp_path / "run", tmp_path / "data", cache=tmp_path)


def test_members_and_references_that_change_between_weeks_are_named(weeks: Weeks, source: Path, tmp_path: Path) -> None:
    """Eras that are added say nothing; a member that has no live rows weighs nothing in the live era."""
    rows = pd.concat([pd.read_parquet(source / f"{name}.parquet") for name in ("train", "validation")])
    random = np.random.default_rng(0)
    given = rows[["era"]].assign(prediction=rows["target"].fillna(0.5) + random.normal(0, 0.5, len(rows)))
    given["numerai_meta_model"] = random.random(len(rows))

    def week(last: int, frame: pd.DataFrame = given) -> Path:
        data, part = weeks.write(tmp_path / "data", last), frame[frame["era"].astype(int) <= last]
        part[["era", "numerai_meta_model"]].to_parquet(data / "meta_model.parquet")
        part[["prediction"]].to_parquet(tmp_path / "mine.parquet")
        return data

    def changed(report: WeekReport) -> list[str]:
        return [note.split(" is not as it was")[0] for note in report.notes if " is not as it was" in note]

    zoo = {**CONFIG["zoo"], "members": {"mine": str(tmp_path / "mine.parquet")}}  # type: ignore[dict-item]
    config, folder = parse_config({**CONFIG, "zoo": zoo, "aim": "payout"}), tmp_path / "run"
    done = run(week(FIRST_WEEK), config, folder, cache=tmp_path / "cache")
    assert "member mine has no live predictions: its live rows are all equal" in done.notes
    assert json.loads((folder / "live.json").read_text())["weights"]["given.mine.target.0"] == 0
    assert pd.read_parquet(folder / "weights.parquet")["given.mine.target.0"].max() > 0
    assert changed(step(folder, week(FIRST_WEEK + 1), cache=tmp_path / "cache")) == []
    other = given.assign(prediction=given["prediction"].to_numpy()[::-1])
    assert changed(step(folder, week(FIRST_WEEK + 2, other), cache=tmp_path / "cache")) == ["the member 'mine'"]
    other["numerai_meta_model"] = other["numerai_meta_model"].to_numpy()[::-1]
    assert changed(step(folder, week(FIRST_WEEK + 3, other), cache=tmp_path / "cache")) == ["meta_model.parquet"]
    assert changed(step(folder, week(FIRST_WEEK + 4, other), cache=tmp_path / "cache")) == []
    assert (folder / "references.parquet").is_file()
