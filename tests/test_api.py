"""The Python interface: light to import, the same run as the command line's, readable errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import eravane
from eravane import api
from eravane.core.config import RunConfig, parse_config, to_toml
from eravane.core.errors import ConfigError, RunError
from eravane.synth import SynthConfig, synthesise

CONFIG = {
    "data": {"feature_sets": ["all"]},
    "time": {"loop_eras": 12},
    "zoo": {"trees": 3, "fold_eras": 6, "folds": 2, "minimum_eras": 2, "params": {"max_depth": 2, "eta": 0.3}},
    "selection": {"minimum_corr": -1.0},
    "gate": {"warmup": 6, "seeds": 1, "steps": 5},
    "loop": {"update": "none"},
    "compute": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(
        tmp_path_factory.mktemp("api") / "data",
        SynthConfig(main_target="target_ender_20", eras=48, rows=30, features=12, groups=3),
    )


@pytest.fixture(scope="module")
def done(data: Path) -> eravane.Run:
    return eravane.run(CONFIG, data=data, out=data.parent / "run", cache=data.parent / "cache")


def test_the_public_names_come_from_light_imports() -> None:
    code = "import eravane, sys; print([n for n in ('numpy', 'pandas', 'torch', 'sklearn') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    for name in eravane.__all__:
        assert getattr(eravane, name) is not None
    with pytest.raises(AttributeError, match="it has EraGatedRegressor"):
        _ = eravane.nothing


@pytest.mark.parametrize("name", ["run", "step", "plan", "export", "fetch", "submit", "upload", "scores", "load"])
def test_what_the_command_line_does_is_called_the_same_in_python(name: str) -> None:
    assert getattr(eravane, name) is getattr(api, name)
    assert name in eravane.__all__


def test_a_plan_from_python_is_that_of_the_command_line(data: Path) -> None:
    found = eravane.plan(data, CONFIG, cores=2)
    assert sum(stage.seconds for stage in found.stages) == found.seconds > 0


def test_a_run_gives_its_files_as_frames(done: eravane.Run) -> None:
    assert done.finished
    resolved = {**CONFIG, "zoo": {**CONFIG["zoo"], "learner": "levels"}}  # what "auto" chose for integer levels
    assert done.config == parse_config(resolved)
    assert done.report.is_file()
    assert done.manifest["data"]["made"] is True
    scores = pq.read_table(done.path / "scores.parquet").to_pandas()
    assert done.scores.index.tolist() == [int(era) for era in scores["era"]]
    np.testing.assert_array_equal(done.scores["ensemble"], scores["ensemble"])
    counted = done.scores.loc[done.manifest["periods"]["report_start"] :, "ensemble"]
    assert done.metrics["series"]["ensemble"]["corr_mean"] == pytest.approx(counted.mean(), abs=1e-12)
    assert set(done.models) == set(done.zoo.loc[done.zoo["selected"], "model_id"])
    assert set(done.base_predictions.columns) == {"id", "era", *done.models}
    assert done.predictions["prediction"].between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(done.weights[list(done.models)].sum(axis=1), 1.0)
    assert len(done.out_of_fold) > 0
    live = pd.read_csv(done.path / "live_predictions.csv", converters={"prediction": float})
    assert done.live_predictions.equals(live)


def test_boosters_are_read_as_the_documentation_says(done: eravane.Run, data: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "run-folder.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    columns = json.loads((done.path / "models" / "index.json").read_text())[done.models[0]]["columns"]
    files = [pq.read_table(data / name) for name in ("train.parquet", "validation.parquet")]
    rows = pd.concat([table.to_pandas(ignore_metadata=True) for table in files]).set_index("id")
    expected = done.base_predictions.set_index("id")[done.models[0]]
    found = names["predict"](done.path, done.models[0], rows.loc[expected.index, columns].to_numpy(np.int8))
    np.testing.assert_array_equal(found, expected)


def test_loading_gives_the_same_run_and_compares(done: eravane.Run, data: Path) -> None:
    again = eravane.load(str(done.path))
    assert again.scores.equals(done.scores)
    other = eravane.run({**CONFIG, "seed": 1}, data=data, out=data.parent / "other", cache=data.parent / "cache")
    found = done.compare(other).as_dict()
    assert found == done.compare(other.path).as_dict()
    shown = str(done.compare(other)).splitlines()
    assert shown[0].startswith(f"Against {done.path.name}, shared eras only")
    assert any(line.split()[:1] == ["ensemble"] for line in shown)
    assert repr(again) == f"Run({str(done.path)!r}, 'finished')".replace("'finished'", "finished")


def test_configurations_come_in_every_form(tmp_path: Path) -> None:
    config = parse_config(CONFIG)
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert api.as_config(CONFIG) == api.as_config(config) == api.as_config(str(tmp_path / "run.toml")) == config
    assert api.as_config(None) == RunConfig()
    with pytest.raises(ConfigError, match="did you mean 'gate'"):
        api.as_config({"gates": {}})


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        eravane.load(tmp_path / "nothing")
    (tmp_path / "run.toml").write_text("")
    started = eravane.load(tmp_path)
    assert not started.finished
    for name in ("predictions", "base_predictions", "out_of_fold", "live_predictions"):
        with pytest.raises(RunError, match="has no"):
            getattr(started, name)


def test_the_command_line_uses_it(data: Path, done: eravane.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from eravane.cli import runs  # noqa: F401
    from eravane.cli.app import app

    calls = []

    def spied(config: RunConfig, **options: object) -> eravane.Run:
        calls.append((config, options))
        return done

    monkeypatch.setattr(api, "run", spied)
    found = CliRunner().invoke(app, ["run", str(data), "--out", str(data.parent / "cli")])
    assert found.exit_code == 0, found.output
    assert calls[0][0] == RunConfig()
    assert calls[0][1]["out"] == data.parent / "cli"
    assert CliRunner().invoke(app, ["report", str(done.path)]).exit_code == 0
