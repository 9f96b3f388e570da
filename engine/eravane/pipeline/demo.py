"""The configuration of `eravane demo`: a whole batch on made data in minutes."""

from __future__ import annotations

from typing import Any

from eravane.core.config import RunConfig, parse_config

# Strong enough a model for 1,000 rows an era, small enough for two cores and four minutes.
DEMO: dict[str, Any] = {
    "data": {"feature_sets": ["small", "medium", "all"]},
    "time": {"loop_eras": 90},
    "zoo": {"trees": 60, "fold_eras": 40, "folds": 3, "params": {"max_depth": 4, "eta": 0.08}},
    "gate": {"seeds": 5},
    "loop": {"update": "refit", "every": 30},
}
TINY: dict[str, Any] = {
    "data": {"feature_sets": ["small", "medium", "all"]},
    "time": {"loop_eras": 20},
    "zoo": {"trees": 15, "fold_eras": 12, "folds": 2, "minimum_eras": 8, "params": {"max_depth": 3, "eta": 0.15}},
    "selection": {"most": 8},
    "gate": {"warmup": 12, "seeds": 2, "steps": 40},
    "loop": {"update": "append", "every": 5, "append_trees": 3},
}


def demo_config(preset: str) -> RunConfig:
    """The demo's configuration for a preset of made data (`tiny` or any larger one)."""
    return parse_config(TINY if preset == "tiny" else DEMO, "demo")
