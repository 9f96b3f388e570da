"""A run that was interrupted can be read: its result files are those of the finished run, up to where it came."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eravane.core.config import RunConfig
from eravane.core.events import Silent
from eravane.pipeline.batch import run
from eravane.pipeline.reporting import assemble
from eravane.report import write_report


class _Stop(Silent):
    """Presses Ctrl-C after some steps of a stage."""

    def __init__(self, stage: str, steps: int) -> None:
        self._stage, self._left, self._now = stage, steps, ""

    def start(self, stage: str, total: int) -> None:
        self._now = stage

    def advance(self, detail: str = "") -> None:
        self._left -= self._now == self._stage
        if not self._left:
            raise KeyboardInterrupt


def test_an_interrupted_run_has_results_and_a_report(micro_data: Path, micro_config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(micro_data, micro_config, out, cache=tmp_path / "cache", progress=_Stop("loop", 7))
    assert assemble(out)
    partial = {
        name: pd.read_parquet(out / f"{name}.parquet")
        for name in ("scores", "weights", "predictions", "base_predictions")
    }
    assert "report" in write_report(out).name
    run(micro_data, micro_config, out, resume=True, cache=tmp_path / "cache")
    assert not assemble(out)
    assert partial["weights"]["era"].tolist() == [f"{era:04d}" for era in range(32, 39)]
    for name, found in partial.items():
        whole = pd.read_parquet(out / f"{name}.parquet")
        pd.testing.assert_frame_equal(found, whole[whole["era"].isin(found["era"])].reset_index(drop=True))


def test_a_run_without_a_loop_has_nothing_to_assemble(
    micro_data: Path, micro_config: RunConfig, tmp_path: Path
) -> None:
    assert not assemble(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(micro_data, micro_config, tmp_path / "run", cache=tmp_path / "cache", progress=_Stop("zoo", 2))
    assert not assemble(tmp_path / "run")
