"""A small made dataset and a configuration that runs on it in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from eravane.core.config import RunConfig, parse_config
from eravane.synth import SynthConfig, synthesise
from tests.support.micro import ERAS, MICRO
from tests.support.shared import Runs, Shared


@pytest.fixture(scope="session")
def micro_data(shared: Shared) -> Path:
    """48 eras of about 50 rows and 24 features in 4 groups."""
    made = SynthConfig(main_target="target_ender_20", eras=ERAS, rows=50, features=24, groups=4, seed=3, snr=0.5)
    return shared.folder("micro-data", lambda folder: synthesise(folder / "data", made)) / "data"


@pytest.fixture(scope="session")
def micro_config() -> RunConfig:
    """Every stage at its smallest, gate and tree updates included."""
    return parse_config(MICRO)


@pytest.fixture(scope="session")
def micro_run(runs: Runs, micro_data: Path, micro_config: RunConfig) -> Path:
    """The folder of a finished run of that configuration; for reading only."""
    return runs(micro_data, micro_config) / "run"
