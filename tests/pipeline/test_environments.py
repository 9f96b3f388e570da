"""Environments for trying an exported model: built once, and a clear sentence where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from eravane.core.errors import RunError
from eravane.pipeline.environments import ENVIRONMENTS, Environment, interpreter


def test_pandas_2_and_3_meet_the_oldest_and_newest_xgboost() -> None:
    texts = [" ".join(environment.requirements) for environment in ENVIRONMENTS]
    assert any("pandas==2.3" in text and "==2.1.4" in text for text in texts)
    assert any("pandas==2.3" in text and "<3.1" in text for text in texts)
    assert any("pandas>=3" in text and "<3.1" in text for text in texts)


def test_an_environment_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(RunError, match=r"the environment with nothing cannot be built .* it needs a package index"):
        interpreter(Environment("nothing", ("eravane-has-no-such-package==0",)), tmp_path)
    assert not list(tmp_path.glob("environments/*/done"))
