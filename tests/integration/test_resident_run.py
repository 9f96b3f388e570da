"""A whole run with features that stay on a device: the bytes of the run on the store's mapped files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eravane.core.config import RunConfig
from eravane.data import resident as module
from eravane.data.resident import Residence, Resident
from eravane.pipeline.batch import run

SAME = ("oof", "base_predictions", "weights", "predictions", "scores")


def _bytes(folder: Path) -> dict[str, bytes]:
    models = {path.name: path.read_bytes() for path in (folder / "models").glob("*.ubj")}
    return models | {name: (folder / f"{name}.parquet").read_bytes() for name in SAME}


@pytest.fixture(scope="module")
def mapped(micro_run: Path) -> dict[str, bytes]:
    return _bytes(micro_run)


@pytest.mark.parametrize("kept", [Residence("whole", 24), Residence("columns", 24 - 1), Residence("eras")], ids=str)
def test_a_run_is_the_same_wherever_its_features_lie(
    micro_data: Path,
    micro_config: RunConfig,
    mapped: dict[str, bytes],
    kept: Residence,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Resident] = []

    class Noted(Resident):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(module, "Resident", Noted)
    monkeypatch.setattr(module, "residence", lambda *_: kept)
    assert _bytes(run(micro_data, micro_config, tmp_path / "run", cache=tmp_path / "cache").path) == mapped
    (held,) = made  # one for all tasks, the loop and the report
    assert held.resident_bytes == 0  # given back at the end of the run
    assert held.sent_bytes > 0
    if kept.mode == "whole":
        assert held.uploads == dict.fromkeys(held.store.columns, 1)
        assert held.sent_bytes == held.store.index.rows * len(held.store.columns)
