"""eravane: a GPU-accelerated batch engine for the Numerai tournament."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> module it lives in, imported when it is first used: importing eravane itself stays light.
_PUBLIC = {
    "EraGatedRegressor": "eravane.estimator",
    "EraStore": "eravane.store",
    "Run": "eravane.api",
    "RunConfig": "eravane.config",
    "WalkForwardSplit": "eravane.splitters",
    "corr_by_era": "eravane.scoring",
    "hac_mean": "eravane.metrics",
    "load": "eravane.api",
    "load_config": "eravane.config",
    "mmc_by_era": "eravane.scoring",
    "run": "eravane.api",
    "summarise": "eravane.metrics",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'eravane' has no attribute {name!r}; it has {', '.join(sorted(_PUBLIC))}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
