"""Environments for trying an exported model: built once, and a clear sentence where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from eravane.core.errors import RunError
from eravane.pipeline.environments import ENVIRONMENTS, Environment, interpreter


def test_pandas_2_and_3_meet_the_oldest_and_newest_xgboost() -> None:
    texts = {" ".join(environment.requirements) for environment in ENVIRONMENTS}
    ages = {age: [text for text in texts if text.startswith(f"pandas=={age}.")] for age in ("2.3", "3")}
    for found in ages.values():
        assert any("xgboost-cpu==2.1.4" in text for text in found)
        assert any("xgboost-cpu==3.0" in text for text in found)


def test_an_environment_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(RunError, match=r"the environment with nothing cannot be built .* it needs a package index"):
        interpreter(Environment("nothing", ("eravane-has-no-such-package==0",)), tmp_path)
    assert not list(tmp_path.glob("environments/*/done"))
