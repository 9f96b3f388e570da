"""eravane: a GPU-accelerated batch engine for the Numerai tournament."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> module it lives in, imported when it is first used: importing eravane itself stays light.
_PUBLIC = {
    "EraGatedRegressor": "eravane.pipeline.estimator",
    "EraStore": "eravane.data.store.store",
    "LevelsRegressor": "eravane.learners.regressor",
    "Run": "eravane.pipeline.handle",
    "RunConfig": "eravane.core.config",
    "WalkForwardSplit": "eravane.calendar.splitters",
    "boost_eras": "eravane.learners.eras",
    "corr_by_era": "eravane.scoring.by_era",
    "era_bag": "eravane.learners.eras",
    "every_nth_era": "eravane.learners.eras",
    "export": "eravane.api",
    "fetch": "eravane.api",
    "hac_mean": "eravane.scoring.metrics",
    "half_life_weights": "eravane.learners.eras",
    "load": "eravane.api",
    "load_config": "eravane.core.config",
    "mmc_by_era": "eravane.scoring.by_era",
    "plan": "eravane.api",
    "run": "eravane.api",
    "scores": "eravane.api",
    "step": "eravane.api",
    "submit": "eravane.api",
    "summarise": "eravane.scoring.metrics",
    "upload": "eravane.api",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'eravane' has no attribute {name!r}; it has {', '.join(sorted(_PUBLIC))}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
