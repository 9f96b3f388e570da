"""Parameters of LightGBM."""

from __future__ import annotations

import pytest

from eravane.core.errors import ConfigError
from eravane.learners import lightgbm
from eravane.learners.lightgbm import LightGbm

pytest.importorskip("lightgbm")


def test_parameters_that_lightgbm_does_not_know_are_noted_with_the_nearest_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, notes = LightGbm.make({"lerning_rate": 0.1, "num_iterations": 3, "qwxz": 1}, "cpu")
    assert notes == [
        "zoo.params.lerning_rate is not known to LightGBM, and has no effect; did you mean 'learning_rate'?",
        "zoo.params.qwxz is not known to LightGBM, and has no effect",
    ]
    with pytest.raises(ConfigError, match=r"zoo\.params: LightGBM refuses them: .*learning_rate"):
        LightGbm.make({"learning_rate": -1.0}, "cpu")
    assert capfd.readouterr() == ("", "")


def test_a_lightgbm_that_lists_no_parameters_judges_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightgbm, "known_parameters", set)
    assert LightGbm.make({"lerning_rate": 0.123}, "cpu")[1] == []  # parameters that no other test tries
