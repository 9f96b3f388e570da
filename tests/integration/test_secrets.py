"""A run, and one that fails, write a planted API key nowhere."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from pathlib import Path

import pytest

from eravane.core.config import RunConfig
from eravane.core.errors import EravaneError
from eravane.pipeline.batch import run

PLANTED = "PLANTED0SECRET0DO0NOT0WRITE"


def test_a_run_writes_the_api_key_nowhere(
    micro_data: Path,
    micro_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", f"{PLANTED}ID")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", PLANTED)
    seen: list[str] = []
    with caplog.at_level(logging.DEBUG):
        run(micro_data, micro_config, tmp_path / "run", cache=tmp_path / "cache")
        failing = dataclasses.replace(
            micro_config, data=dataclasses.replace(micro_config.data, target="target_unknown")
        )
        with pytest.raises(EravaneError) as caught:
            run(micro_data, failing, tmp_path / "failing", cache=tmp_path / "cache")
        seen += traceback.format_exception(caught.value)
    output = capfd.readouterr()
    seen += [output.out, output.err, caplog.text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [text for text in seen if PLANTED in text]
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]
