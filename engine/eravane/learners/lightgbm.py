"""LightGBM as a second learner: it builds histograms of the sampled columns alone, where XGBoost builds all."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Unpack

import numpy as np

from eravane.core.arrays import Float32s, Values
from eravane.core.errors import ConfigError, did_you_mean
from eravane.learners.protocol import INTERCEPT, Growing, check_stop, known_rows

DEFAULT_PARAMS: Mapping[str, Any] = {
    "objective": "regression",
    "max_depth": 5,
    "num_leaves": 32,
    "learning_rate": 0.05,
    "feature_fraction": 0.1,
    "max_bin": 255,
    "verbosity": -1,
}
# Set by the engine: one thread, every level a bin of its own, the same bytes every time.
FIXED: Mapping[str, Any] = {
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "boost_from_average": False,
    "min_data_in_bin": 1,
    "feature_pre_filter": False,
}
SEEDS = ("feature_fraction_seed", "bagging_seed", "extra_seed", "objective_seed")
# While a dataset is built there are float32 rows, and the values of up to `SAMPLED` of them with their positions, from
# which LightGBM draws its bins (measured with the slack of its growing lists; zeros are left out); afterwards one byte.
ROWS_BYTES, BINNED_BYTES, SAMPLED = 4, 1, 200_000
SAMPLE_BYTES = {1: 12, 4: 15}
BYTES_PER_ROW = 60  # gradients, predictions, labels, weights and row positions
MARK = b"lightgbm "  # first bytes of a block; UBJ starts with "{"


@dataclass(frozen=True)
class LightGbm:
    """LightGBM on the CPU.

    Attributes:
        params: complete parameters, without seeds.
    """

    params: Mapping[str, Any]
    name: str = "lightgbm"
    device: str = "cpu"

    @classmethod
    def make(cls, params: Mapping[str, object], device: str) -> tuple[LightGbm, list[str]]:
        """Complete parameters with the defaults.

        Raises:
            ConfigError: LightGBM is not installed, the device is not the CPU, or a parameter is the engine's own.
        """
        if importlib.util.find_spec("lightgbm") is None:
            raise ConfigError('zoo.learner "lightgbm" is not installed; install eravane with the extra lightgbm')
        if device != "cpu":
            raise ConfigError(
                f'zoo.learner "lightgbm" grows trees on the CPU, given {device}; set compute.device = "cpu"'
            )
        for name in (*FIXED, *SEEDS, "seed", "device", "device_type"):
            if name in params:
                raise ConfigError(f"zoo.params.{name} is set by eravane ([compute] and seed decide); remove it")
        return cls({**DEFAULT_PARAMS, **params, **FIXED}), _try(
            json.dumps({**DEFAULT_PARAMS, **params}, sort_keys=True)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters and version."""
        import lightgbm

        return {"params": dict(self.params), "lightgbm": lightgbm.__version__}

    def matrix(self, table: Any) -> Any:
        """Bin an Arrow table; LightGBM copies it to float32 rows while it does."""
        import lightgbm

        rows_NC = np.empty((table.num_rows, table.num_columns), dtype=np.float32)
        for position, column in enumerate(table.columns):
            rows_NC[:, position] = column.to_numpy()
        dataset = lightgbm.Dataset(rows_NC, params=dict(self.params), free_raw_data=True)
        return dataset.construct()

    def bytes_needed(self, rows: int, columns: int, itemsize: int, models: int = 1, *, missing: bool = False) -> int:
        """Bytes at the peak of building and training."""
        beside = max(rows * BINNED_BYTES, min(rows, SAMPLED) * SAMPLE_BYTES[itemsize])
        return columns * (rows * ROWS_BYTES + beside) + rows * BYTES_PER_ROW

    def fit(self, matrix: Any, label_N: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]) -> bytes:
        """See `Learner.fit`."""
        import lightgbm

        known, margin_N = known_rows(label_N), how.get("margin_N")
        base = INTERCEPT if margin_N is None else 0.0
        start_N = np.full(label_N.size, base) if margin_N is None else margin_N
        weight = known.astype(np.float32) if weight_N is None else np.where(known, weight_N, np.float32(0))
        # Fields and not `set_weight`, which leaves the old weights in place where the new ones are all 1.
        matrix.set_field("label", np.where(known, label_N, np.float32(INTERCEPT)))
        matrix.set_field("weight", weight)
        matrix.set_field("init_score", np.ascontiguousarray(start_N, dtype=np.float64))
        seeds = dict.fromkeys(SEEDS, how["seed"] % 2**31)
        booster = lightgbm.Booster({**self.params, **seeds}, matrix)
        for _ in range(how["trees"]):
            check_stop(how.get("stop"))
            if booster.update():
                break  # no split gains anything any more
        text: str = booster.model_to_string()
        return MARK + f"{base}\n{text}".encode()


@contextmanager
def _silent() -> Iterator[None]:
    """Keep off the terminal what LightGBM's library prints of an error that it raises, too."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def _try(params: str) -> list[str]:
    """Grow a small tree with parameters, written as JSON; a note for each that LightGBM does not know.

    Raises:
        ConfigError: LightGBM refuses them.
    """
    import lightgbm

    tried, names = json.loads(params), known_parameters()
    try:
        with _silent():
            rows = lightgbm.Dataset(np.arange(16.0).reshape(8, 2), np.linspace(0, 1, 8), params={**tried, **FIXED})
            lightgbm.Booster({**tried, **FIXED}, rows).update()
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        reason = str(error).strip().partition(" at /")[0]
        raise ConfigError(f"zoo.params: LightGBM refuses them: {reason}") from error
    return [
        f"zoo.params.{name} is not known to LightGBM, and has no effect{did_you_mean(name, sorted(names))}"
        for name in sorted(tried)
        if names and name not in names
    ]


def known_parameters() -> set[str]:
    """All names of parameters; none where this LightGBM does not list them, which it does in a private place alone."""
    import lightgbm

    listing = getattr(getattr(lightgbm.basic, "_ConfigAliases", None), "_get_all_param_aliases", dict)
    return {alias for main, aliases in listing().items() for alias in (main, *aliases)}


class Boosted:
    """A fitted block of LightGBM's trees.

    Args:
        booster: the trees.
        base: added to their sum.
    """

    def __init__(self, booster: Any, base: float) -> None:
        self._booster, self._base = booster, base

    @classmethod
    def load(cls, block: bytes) -> Boosted:
        """Read what `LightGbm.fit` gave."""
        import lightgbm

        header, _, text = block.partition(b"\n")
        return cls(lightgbm.Booster(model_str=text.decode()), float(header.removeprefix(MARK)))

    def num_boosted_rounds(self) -> int:
        """Trees."""
        return int(self._booster.num_trees())

    def output(self, values_CN: Values) -> Float32s:
        """Predict rows from columns [C, N]; float32 [N]."""
        raw_N = self._booster.predict(values_CN.T.astype(np.float32), num_threads=1)
        return np.asarray(raw_N + self._base, dtype=np.float32)
