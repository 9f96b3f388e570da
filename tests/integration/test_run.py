"""The whole batch on made and on real data: its files, its numbers, its repeatability, its errors."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numerai_tools.scoring import numerai_corr

from eravane.core.config import RunConfig, load_config
from eravane.core.errors import ConfigError, DataError, RunError
from eravane.core.events import Silent
from eravane.pipeline.batch import run

CONFIGS = Path(__file__).parents[2] / "configs"
CONTRACT = [
    *("run.toml", "manifest.json", "events.jsonl", "zoo.parquet", "oof.parquet", "base_predictions.parquet"),
    *("weights.parquet", "predictions.parquet", "scores.parquet", "metrics.json"),
    *("live_predictions.csv", "report.html"),
]
REPEATED = [name for name in CONTRACT if name.endswith((".parquet", ".csv")) or name == "metrics.json"]


@pytest.fixture
def done(micro_run: Path) -> Path:
    return micro_run


def _labels(data: Path, target: str = "target") -> pd.DataFrame:
    parts = [pd.read_parquet(data / f"{name}.parquet", columns=["era", target]) for name in ("train", "validation")]
    return pd.concat(parts)


def _check_scores(folder: Path, data: Path, target: str = "target") -> int:
    """Recompute scores.parquet and metrics.json from predictions and labels with numerai-tools and pandas alone."""
    predictions = pd.read_parquet(folder / "predictions.parquet").set_index("id")
    base = pd.read_parquet(folder / "base_predictions.parquet").set_index("id").drop(columns="era")
    weights = pd.read_parquet(folder / "weights.parquet").set_index("era").drop(columns="n_active")
    scores = pd.read_parquet(folder / "scores.parquet").set_index("era")
    joined = predictions.join(_labels(data, target)[[target]]).join(base).dropna(subset=[target])
    for era, group in joined.groupby("era"):
        columns = ["prediction", *base.columns]
        found = numerai_corr(group[columns].astype("float64"), group[target])
        np.testing.assert_allclose(scores.loc[era, "ensemble"], found["prediction"], atol=1e-9)
        np.testing.assert_allclose(scores.loc[era, list(base.columns)].astype(float), found[base.columns], atol=1e-9)
    assert scores.index.tolist() == sorted(joined["era"].unique())
    _check_ensemble(predictions, base, weights)
    _check_metrics(folder, scores)
    return len(scores)


def _check_ensemble(predictions: pd.DataFrame, base: pd.DataFrame, weights: pd.DataFrame) -> None:
    """The stored prediction is the rank of the weighted gaussianized ranks, by pandas and scipy."""
    from scipy.stats import norm

    for era, group in base.groupby(predictions["era"]):
        z = norm.ppf((group.rank() - 0.5) / len(group))
        mixed = pd.Series(z @ weights.loc[era].to_numpy()).round(12)
        expected = (mixed.rank() - 0.5) / len(group)
        np.testing.assert_allclose(predictions.loc[group.index, "prediction"], expected, atol=1e-12)


def _check_metrics(folder: Path, scores: pd.DataFrame) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    start = json.loads((folder / "manifest.json").read_text())["periods"]["report_start"]
    counted = scores[scores.index.astype(int) >= start]
    for name, row in metrics["series"].items():
        series = counted[name]
        cumulative = series.cumsum()
        assert row["n_eras"] == len(series)
        assert row["corr_mean"] == pytest.approx(series.mean(), abs=1e-9)
        assert row["corr_std"] == pytest.approx(series.std(ddof=0), abs=1e-9)
        assert row["sharpe"] == pytest.approx(series.mean() / series.std(ddof=0), abs=1e-9)
        assert row["max_drawdown"] == pytest.approx((cumulative.cummax() - cumulative).max(), abs=1e-9)
    gain = (counted["ensemble"] - counted["equal_weight"]).mean()
    assert metrics["gain_over_equal_weight"]["mean"] == pytest.approx(gain, abs=1e-9)


def test_every_file_of_the_contract_is_there(done: Path, micro_data: Path, micro_config: RunConfig) -> None:
    assert [name for name in CONTRACT if not (done / name).is_file()] == []
    chosen = dataclasses.replace(micro_config.zoo, learner="levels")  # by auto
    assert load_config(done / "run.toml") == dataclasses.replace(micro_config, zoo=chosen)
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["lags"]["score"] == 6
    zoo = pd.read_parquet(done / "zoo.parquet")
    expected = "model_id feature_set group target learner n_features n_trees corr_mean corr_std sharpe max_drawdown"
    assert set(expected.split()) | {"selected", "reason", "seconds"} <= set(zoo.columns)
    assert zoo["selected"].sum() == 5
    assert zoo["reason"].str.len().gt(5).all()
    for name in ("oof", "base_predictions", "weights", "predictions", "scores"):
        eras = pd.read_parquet(done / f"{name}.parquet")["era"]
        assert eras.str.fullmatch(r"\d{4}").all()
    assert set(pq.read_schema(done / "oof.parquet").names) == {"id", "era", *zoo["model_id"]}
    live = pd.read_csv(done / "live_predictions.csv")
    assert set(live["id"]) == set(pd.read_parquet(micro_data / "live.parquet").index)
    assert live["prediction"].between(0, 1, inclusive="neither").all()


def test_report_and_manifest_name_horizon_and_payout_rule(done: Path) -> None:
    """A run on 20-day labels, which the rule in force does not pay."""
    notes, page = json.loads((done / "manifest.json").read_text())["notes"], (done / "report.html").read_text()
    for sentence in (
        "target = target_ender_20, 20 days: lags 6 and 9, purge 8",
        "payout: 3 CORR60 + 15 MMC60, at most 100% of the stake; round 1343, since 2026-08-28 (table)",
        "scores on 20-day labels are no longer paid: 3 CORR60 + 15 MMC60 is",
    ):
        assert sentence in notes
        assert sentence in page


def test_scores_equal_numerai_tools(done: Path, micro_data: Path) -> None:
    assert _check_scores(done, micro_data) >= 10


def test_gates_and_weights_move_and_trees_are_updated(done: Path) -> None:
    weights = pd.read_parquet(done / "weights.parquet").drop(columns=["era", "n_active"])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert (weights >= 0).all(axis=None)
    assert weights.std().max() > 0.01
    events = [json.loads(line) for line in (done / "events.jsonl").read_text().splitlines()]
    updates = [event["update"] for event in events if event["event"] == "era"]
    wanted = ["refit" if n % 4 == 0 else "leaves" if n % 2 == 0 else "" for n in range(len(updates))]
    assert updates == ["", *wanted[1:]]
    assert len(updates) >= 17
    assert {event["updated"] for event in events if event.get("update")} == {5}


def test_one_and_two_workers_give_the_same_bytes(
    done: Path, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    one = dataclasses.replace(micro_config, compute=dataclasses.replace(micro_config.compute, workers=1))
    again = run(micro_data, one, tmp_path / "run", cache=tmp_path / "cache")
    for name in REPEATED:
        if name != "zoo.parquet":
            assert (again.path / name).read_bytes() == (done / name).read_bytes(), name
    first, second = (pd.read_parquet(path / "zoo.parquet").drop(columns="seconds") for path in (done, again.path))
    pd.testing.assert_frame_equal(first, second)


class _Interrupting(Silent):
    """Presses Ctrl-C at a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self._wanted, self._left, self._stage = stage, step, ""

    def start(self, stage: str, total: int) -> None:
        self._stage = stage

    def advance(self, detail: str = "") -> None:
        if self._stage == self._wanted:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize(("stage", "step"), [("zoo", 3), ("first models", 2), ("history", 2), ("loop", 1), ("loop", 9)])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    stage: str, step: int, done: Path, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(micro_data, micro_config, tmp_path / "run", cache=tmp_path / "cache", progress=_Interrupting(stage, step))
    again = run(micro_data, micro_config, tmp_path / "run", resume=True, cache=tmp_path / "cache")
    for name in REPEATED:
        if name != "zoo.parquet":
            assert (again.path / name).read_bytes() == (done / name).read_bytes(), name


def test_real_rows_of_2018(sample_2018: Path, tmp_path: Path) -> None:
    config = load_config(CONFIGS / "numerai-2018.toml")
    small = dataclasses.replace(
        config,
        zoo=dataclasses.replace(config.zoo, trees=5),
        gate=dataclasses.replace(config.gate, seeds=1, steps=20),
    )
    result = run(sample_2018, small, tmp_path / "run", cache=tmp_path / "cache")
    assert [name for name in CONTRACT if not (result.path / name).is_file()] == []
    assert _check_scores(result.path, sample_2018) == 40
    live = pd.read_csv(result.path / "live_predictions.csv")
    assert set(live["id"]) == set(pd.read_parquet(sample_2018 / "live.parquet").index)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"time": {"loop_eras": 400}}, ConfigError, "loop would start"),
        ({"zoo": {"fold_eras": 60}}, ConfigError, "too few"),
        ({"data": {"target": "target_bob_20"}}, ConfigError, "target_bob_20"),
        ({"data": {"feature_groups": ["snow"]}}, ConfigError, "'snow'"),
    ],
)
def test_a_configuration_that_does_not_fit(
    change: dict[str, dict[str, object]],
    error: type[Exception],
    message: str,
    micro_data: Path,
    micro_config: RunConfig,
    tmp_path: Path,
) -> None:
    if "time" in change:
        change = {"time": {"loop_start": 0, **change["time"]}}
    sections = {name: dataclasses.replace(getattr(micro_config, name), **values) for name, values in change.items()}
    with pytest.raises(error, match=message):
        run(micro_data, dataclasses.replace(micro_config, **sections), tmp_path / "run", cache=tmp_path / "cache")


def test_a_target_that_is_all_missing(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(micro_data, data)
    for name in ("train.parquet", "validation.parquet"):
        pd.read_parquet(data / name).assign(target=np.float32(np.nan)).to_parquet(data / name)
    with pytest.raises(DataError, match="missing in every row"):
        run(data, micro_config, tmp_path / "run", cache=tmp_path / "cache")


def test_a_run_folder_that_exists_and_one_of_another_run(
    done: Path, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="exists already"):
        run(micro_data, micro_config, done, cache=tmp_path)
    with pytest.raises(RunError, match="another configuration"):
        run(micro_data, dataclasses.replace(micro_config, seed=9), done, resume=True, cache=tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        run(micro_data, micro_config, tmp_path / "none", resume=True, cache=tmp_path)


def test_no_live_file_is_noted(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(micro_data, data)
    (data / "live.parquet").unlink()
    result = run(data, micro_config, tmp_path / "run", cache=tmp_path / "cache")
    assert any("no live predictions" in note for note in result.notes)
    assert not (result.path / "live_predictions.csv").exists()


def _rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path)


def _set_first(frame: pd.DataFrame, column: str, value: int) -> pd.DataFrame:
    values = frame[column].to_numpy(copy=True)
    values[0] = value
    return frame.assign(**{column: values})


def _repeat_first_id(frame: pd.DataFrame) -> pd.DataFrame:
    ids = frame.index.to_numpy(copy=True)
    ids[1] = ids[0]
    return frame.set_index(pd.Index(ids, name="id"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda data: (data / "validation.parquet").unlink(), r"validation\.parquet"),
    "truncated": (lambda data: os.truncate(data / "train.parquet", 3000), r"train\.parquet"),
    "no era": (lambda data: _rewrite(data / "train.parquet", lambda f: f.drop(columns="era")), "era"),
    "no feature": (
        lambda data: _rewrite(data / "validation.parquet", lambda f: f.drop(columns=f.columns[5])),
        r"validation\.parquet.*feature_",
    ),
    "level 7": (
        lambda data: _rewrite(data / "validation.parquet", lambda f: _set_first(f, f.columns[4], 7)),
        r"validation\.parquet.*feature_.*7",
    ),
    "duplicate ids": (
        lambda data: _rewrite(data / "train.parquet", _repeat_first_id),
        r"train\.parquet.*n[0-9a-f]{15}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_input_is_named_and_leaves_nothing(
    damage: str, micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    change, message = DAMAGE[damage]
    shutil.copytree(micro_data, tmp_path / "data")
    change(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        run(tmp_path / "data", micro_config, tmp_path / "run", cache=tmp_path / "cache")
    assert not (tmp_path / "run").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("write", [1, 3, 8, 40])
def test_a_full_disk_is_reported_and_the_run_resumed(
    write: int,
    done: Path,
    micro_data: Path,
    micro_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The n-th file that the loop brings to disk meets a full one; with room again the run ends in the same bytes."""
    synced = os.fsync

    def full(descriptor: int) -> None:
        nonlocal write
        if "/run/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            write -= 1
            if write == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        run(micro_data, micro_config, tmp_path / "run", cache=tmp_path / "cache")
    monkeypatch.undo()
    resume = (tmp_path / "run" / "run.toml").exists()
    again = run(micro_data, micro_config, tmp_path / "run", resume=resume, cache=tmp_path / "cache")
    for name in ("predictions.parquet", "metrics.json", "live_predictions.csv"):
        assert (again.path / name).read_bytes() == (done / name).read_bytes(), name
