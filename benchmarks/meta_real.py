"""Weekly scores of real models, where the folder with them is at hand: no features, so the era itself shows nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.meta_worlds import Planted
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel

FloatArray = NDArray[np.float64]

SCORES = "ERAVANE_REAL_SCORES"
# Weeks before the first tested one.
FIRST = 58
# Agreement of the models was not published. These two bracket it.
AGREEMENTS = ("scores", "0.9")


def folder() -> Path | None:
    """The folder that ERAVANE_REAL_SCORES names, or one beside the repository; None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "real-era-scores"
    found = Path(os.environ[SCORES]) if SCORES in os.environ else beside
    return found if found.is_dir() else None


def real_pools(where: Path) -> Iterator[tuple[str, Planted]]:
    """Every pool of a folder of parquet files (weeks x models), under both agreements."""
    for path in sorted(where.glob("*.parquet")):
        c_EM = pd.read_parquet(path).select_dtypes("number").dropna().to_numpy(dtype=np.float64)
        for how in AGREEMENTS:
            yield f"{path.stem}, C {how}", real_world(c_EM, how)


def real_world(c_EM: FloatArray, how: str) -> Planted:
    """Scores as outcomes, with agreement taken as the correlation of the scores, or .9 throughout."""
    eras, size = c_EM.shape
    C_MM = np.asarray(np.corrcoef(c_EM.T)) if how == "scores" else np.where(np.eye(size) > 0, 1.0, 0.9)
    names, cells = ("log_rows", "missing"), tuple(np.zeros(0, dtype=np.int64) for _ in range(size))
    facts = EraFacts(np.zeros((size, 0)), np.zeros(2), (), names, np.zeros((0, 0), dtype=np.float32), cells)
    outcomes = [EraOutcome(e + 1, c_EM[e], c_EM[e], C_MM, facts, np.ones(size)) for e in range(eras)]
    pool = tuple(GateModel(f"m{m}", "all", str(m)) for m in range(size))
    return Planted(outcomes, pool, np.zeros(eras, dtype=np.int64))
