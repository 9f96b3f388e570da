"""A whole run on the level grower: without sampling it is the run on XGBoost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from eravane.core.config import parse_config
from eravane.core.errors import RunError
from eravane.pipeline.batch import run
from eravane.pipeline.export import export
from eravane.runstate.runfolder import RunFolder
from tests.support.micro import MICRO


@pytest.mark.parametrize("update", ["append", "refit+leaves"])
def test_a_run_on_levels_is_the_run_on_xgboost(micro_data: Path, tmp_path: Path, update: str) -> None:
    runs = {}
    for learner in ("levels", "xgboost"):
        zoo = {**MICRO["zoo"], "learner": learner, "params": {"max_depth": 2, "eta": 0.3, "colsample_bytree": 1.0}}
        config = parse_config({**MICRO, "zoo": zoo, "loop": {"update": update, "every": 4, "append_trees": 2}})
        runs[learner] = run(micro_data, config, tmp_path / learner, cache=tmp_path / f"{learner}-cache").path
    assert (runs["levels"] / "oof.parquet").read_bytes() == (runs["xgboost"] / "oof.parquet").read_bytes()
    for name in ("base_predictions", "weights"):  # updates weigh eras; sums of weights round in the last place
        ours, theirs = (pd.read_parquet(path / f"{name}.parquet") for path in runs.values())
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=1e-6)
    assert set(pd.read_parquet(runs["levels"] / "zoo.parquet")["learner"]) == {"levels"}
    assert (runs["levels"] / "report.html").stat().st_size > 0
    export(runs["levels"], tmp_path / "model.pkl")
    assert (tmp_path / "model.pkl").stat().st_size > 0


def test_a_run_that_leaves_the_learner_open_writes_down_which_it_took(micro_data: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "run", tmp_path / "cache"
    config = parse_config(MICRO)
    assert config.zoo.learner == "auto"
    notes = run(micro_data, config, out, cache=cache).notes
    assert any(note.startswith('zoo.learner "auto" is "levels": ') for note in notes)
    folder = RunFolder.open(out)
    assert folder.config() == replace(config, zoo=replace(config.zoo, learner="levels"))
    assert folder.manifest()["config_digest"] == folder.config().digest()
    predicted = (out / "predictions.parquet").read_bytes()
    run(micro_data, config, out, cache=cache, resume=True)  # as it was started, the learner left open
    assert (out / "predictions.parquet").read_bytes() == predicted
    other = replace(config, zoo=replace(config.zoo, learner="xgboost"))
    with pytest.raises(RunError, match="started with another configuration"):
        run(micro_data, other, out, cache=cache, resume=True)


def test_a_run_of_xgboost_is_resumed_as_one_where_the_learner_is_left_open(micro_data: Path, tmp_path: Path) -> None:
    """As runs of versions are whose default was XGBoost."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    config = parse_config(MICRO)
    run(micro_data, replace(config, zoo=replace(config.zoo, learner="xgboost")), out, cache=cache)
    run(micro_data, config, out, cache=cache, resume=True)
    assert RunFolder.open(out).config().zoo.learner == "xgboost"
