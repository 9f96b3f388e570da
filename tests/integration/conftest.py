"""A small made dataset and a configuration that runs on it in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from eravane.core.config import RunConfig, parse_config
from eravane.synth import SynthConfig, synthesise

ERAS = 48
LOOP_START = 32

MICRO = {
    "data": {"feature_sets": ["small", "all"]},
    "time": {"loop_start": LOOP_START},
    "zoo": {"trees": 4, "fold_eras": 10, "folds": 2, "minimum_eras": 2, "params": {"max_depth": 2, "eta": 0.3}},
    "selection": {"most": 5, "minimum_corr": -1.0},
    "gate": {"warmup": 8, "seeds": 2, "steps": 12, "refit_every": 6},
    "loop": {"update": "append", "every": 4, "append_trees": 2},
    "compute": {"device": "cpu"},
}


@pytest.fixture(scope="session")
def micro_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 eras of about 50 rows and 24 features in 4 groups."""
    out = tmp_path_factory.mktemp("micro") / "data"
    return synthesise(
        out, SynthConfig(main_target="target_ender_20", eras=ERAS, rows=50, features=24, groups=4, seed=3, snr=0.5)
    )


@pytest.fixture(scope="session")
def micro_config() -> RunConfig:
    """Every stage at its smallest, gate and tree updates included."""
    return parse_config(MICRO)
