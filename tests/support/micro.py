"""The smallest configuration of a run with every stage in it, and the size of the dataset it is made for."""

from __future__ import annotations

ERAS = 48
LOOP_START = 32

MICRO = {
    "data": {"feature_sets": ["small", "all"]},
    "time": {"loop_start": LOOP_START},
    "zoo": {"trees": 4, "fold_eras": 10, "folds": 2, "minimum_eras": 2, "params": {"max_depth": 2, "eta": 0.3}},
    "selection": {"most": 5, "minimum_corr": -1.0},
    "gate": {"warmup": 8, "seeds": 2, "steps": 12, "refit_every": 6},
    "loop": {"every": 4, "leaves_every": 2},
    "compute": {"device": "cpu"},
}
