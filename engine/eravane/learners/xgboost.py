"""The learner: XGBoost trees grown on quantile matrices that are built from the store's columns without a sketch."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import xgboost as xgb

from eravane.backend.protocol import DeviceTable
from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError, DeviceError, RunError
from eravane.learners.protocol import INTERCEPT, Growing, OutOfDeviceMemoryError, check_stop, known_rows

DEFAULT_PARAMS: Mapping[str, Any] = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_depth": 5,
    "eta": 0.05,
    "colsample_bytree": 0.1,
    "max_bin": 256,
    "verbosity": 1,
}
# Bytes that XGBoost holds per cell of a dense matrix: on the CPU two one-byte copies, beside a copy of the columns
# while it bins them (measured 3.32 in all at 200,000 rows x 800, of levels); on a GPU three bits for levels and nine
# for floats, there twice for a moment beside the columns that they are made of.
CPU_BYTES_PER_CELL = 2.35
CPU_BYTES_PER_CELL_MISSING = 5.2  # a single missing value widens the row-wise index to four bytes (measured 5.17)
CUDA_BITS_PER_CELL = {1: 3, 4: 9}
# On the CPU floats are binned by a sketch of every column: several levels of summaries of 16 bytes an entry (measured
# 710 kB at 40,000 rows and 1,210 kB at 160,000, with what the allocator keeps; a fifth less with 30 % NaN).
SKETCH_FACTOR, SKETCH_ENTRY, SKETCH_SLACK = 8, 16, 1.2
# Parameters that depend on the columns of a matrix.
PER_COLUMN = ("monotone_constraints", "interaction_constraints")
BYTES_PER_ROW = 60  # gradients, predictions, labels, weights and row positions
# Every value an int8 feature can hold; a matrix that bins by this reference needs no sketch and gives the same trees.
LEVELS = np.arange(-1, 5, dtype=np.int8)


def resolve_params(params: Mapping[str, object], device: str) -> tuple[dict[str, Any], list[str]]:
    """Complete XGBoost parameters with the defaults and translate names that XGBoost has dropped.

    Returns:
        The parameters, and a note for each translation (`gpu_hist` was removed in XGBoost 3.1).

    Raises:
        ConfigError: a parameter contradicts what the engine sets itself, or would merge levels.
    """
    merged, notes = {**DEFAULT_PARAMS, **params}, []
    for name in ("device", "seed", "random_state", "nthread", "n_jobs", "base_score", "missing"):
        if name in params:
            raise ConfigError(f"zoo.params.{name} is set by eravane ([compute] and seed decide); remove it")
    if merged["tree_method"] == "gpu_hist":
        merged["tree_method"] = "hist"
        notes.append('zoo.params.tree_method "gpu_hist" was removed in XGBoost 3.1: using "hist" on the run\'s device')
    if merged["tree_method"] != "hist":
        raise ConfigError(f'zoo.params.tree_method is "hist", given {merged["tree_method"]!r}')
    if int(merged["max_bin"]) < LEVELS.size:
        raise ConfigError(f"zoo.params.max_bin must be at least {LEVELS.size} to keep the levels apart")
    return {**merged, "device": device, "nthread": 1, "base_score": INTERCEPT}, notes


def try_params(params: Mapping[str, object]) -> list[str]:
    """Grow a small tree on the CPU with parameters; a note for each that XGBoost does not know.

    Raises:
        ConfigError: XGBoost refuses them.
    """
    tried = {name: params[name] for name in sorted(params) if name not in (*PER_COLUMN, "device")}
    return [f"zoo.params.{name} is not known to XGBoost, and has no effect" for name in _unused(json.dumps(tried))]


@cache
def _unused(params: str) -> tuple[str, ...]:
    """Those of the parameters, written as JSON, that XGBoost does not use."""
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            matrix = xgb.QuantileDMatrix(rows, np.linspace(0, 1, 8), nthread=1)
            xgb.train({**json.loads(params), "verbosity": 1, "nthread": 1}, matrix, 1)
        except (xgb.core.XGBoostError, TypeError, ValueError) as error:
            raise ConfigError(f"zoo.params: XGBoost refuses them: {plain_error(error)}") from error
    text = " ".join(str(warning.message) for warning in caught if "are not used" in str(warning.message))
    return tuple(re.findall(r'"(\w+)"', text.partition("Parameters:")[2]))


def plain_error(error: Exception) -> str:
    """The message of an error of XGBoost in one line, without its place in XGBoost's source and its stack."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: (Check failed: )?", "", first)


@dataclass(frozen=True)
class XGBoost:
    """XGBoost as a learner.

    Attributes:
        params: from `resolve_params`.
    """

    params: Mapping[str, Any]
    name: str = "xgboost"

    @property
    def device(self) -> str:
        """Device on which trees are grown, "cpu" or "cuda"."""
        return str(self.params["device"])

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters and version."""
        return {"params": dict(self.params), "xgboost": xgb.__version__}

    def matrix(self, table: object) -> xgb.QuantileDMatrix:
        """Bin a table; see `quantile_matrix`.

        Raises:
            OutOfDeviceMemoryError: the matrix does not fit.
        """
        try:
            return quantile_matrix(table, self.params)
        except xgb.core.XGBoostError as error:
            raise _readable(error, self.device) from error

    def bytes_needed(self, rows: int, columns: int, itemsize: int, models: int = 1, *, missing: bool = False) -> int:
        """Bytes at the peak of building and training; on the CPU XGBoost joins the segments of a column into one."""
        if self.device != "cpu":
            per_cell = itemsize + 2 * CUDA_BITS_PER_CELL[itemsize] / 8
        else:
            sketched = _sketch_bytes(rows, int(self.params["max_bin"])) / rows if itemsize > 1 and rows else 0.0
            # Sketches are gone when the wider index of values of which some are missing is made.
            index = CPU_BYTES_PER_CELL_MISSING if missing else CPU_BYTES_PER_CELL
            per_cell = itemsize + max(index, CPU_BYTES_PER_CELL + sketched)
        return int(rows * (columns * per_cell + BYTES_PER_ROW))

    def fit(
        self, matrix: xgb.QuantileDMatrix, label_N: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]
    ) -> bytes:
        """See `Learner.fit`."""
        try:
            return fit(matrix, label_N, weight_N, params=self.params, **how)
        except xgb.core.XGBoostError as error:
            raise _readable(error, self.device) from error


def _readable(error: xgb.core.XGBoostError, device: str) -> Exception:
    text = str(error)
    if any(sign in text.lower() for sign in ("out of memory", "memoryallocation", "bad_alloc")):
        return OutOfDeviceMemoryError(f"XGBoost ran out of memory on {device}: {plain_error(error)}")
    return RunError(f"XGBoost refused to train: {plain_error(error)}")


def _sketch_bytes(rows: int, bins: int) -> float:
    """Bytes of the sketch of one column: as many levels as `rows` fill, whose size grows with their number."""
    levels = 1
    while (size := min(rows, levels * bins * SKETCH_FACTOR + 1)) << levels < rows:
        levels += 1
    return SKETCH_SLACK * SKETCH_ENTRY * size * (levels + 3)


def quantile_matrix(table: object, params: Mapping[str, object]) -> xgb.QuantileDMatrix:
    """Bin a table of int8 or float32 columns for training; chunks are fine.

    Integer levels are binned by a six-row reference that lists all of them, so that every matrix of every fold has
    the same cuts and XGBoost skips its quantile sketch: identical trees in 50 to 75 % of the time, at every width from
    1 to 300 columns (60,000 rows, Arrow).

    Args:
        table: an Arrow table, or a `DeviceTable`, whose matrix XGBoost reads where it lies on the GPU.
        params: from `resolve_params`.
    """
    reference, data = None, table
    if isinstance(table, pa.Table):
        names, kind = list(table.column_names), table.schema.types[0]
    elif isinstance(table, DeviceTable):
        names, kind, data = list(table.names), table.values_CN.dtype, table.values_CN.T
    else:
        raise TypeError(f"expected an Arrow table or a DeviceTable, given {type(table).__name__}")
    if str(kind) == "int8":
        rows = np.repeat(LEVELS[:, None], len(names), axis=1)
        reference = xgb.QuantileDMatrix(
            rows, np.zeros(LEVELS.size), max_bin=params["max_bin"], nthread=1, feature_names=names
        )
    if data is table:
        return xgb.QuantileDMatrix(table, ref=reference, max_bin=params["max_bin"], nthread=1)
    types = ["int" if reference is not None else "float"] * len(names)  # as XGBoost reads them from data frames
    described = {"feature_names": names, "feature_types": types}
    return xgb.QuantileDMatrix(data, ref=reference, max_bin=params["max_bin"], nthread=1, **described)


def fit(
    matrix: xgb.QuantileDMatrix,
    label_N: Float32s,
    weight_N: Float32s | None,
    *,
    params: Mapping[str, Any],
    **how: Unpack[Growing],
) -> bytes:
    """Grow trees as `Learner.fit` does, with these parameters; NaN rows get weight 0, the same as leaving them out."""
    known, margin_N = known_rows(label_N), how.get("margin_N")
    if weight_N is None:
        # No weights where none are needed: ones cost 7 % on narrow cells.
        weight = np.array([], dtype=np.float32) if known.all() else known.astype(np.float32)
    else:
        weight = np.where(known, weight_N, np.float32(0))
    matrix.set_info(label=np.where(known, label_N, np.float32(INTERCEPT)), weight=weight)
    settings = dict(params)
    if margin_N is not None:
        settings["base_score"] = 0.0
    matrix.set_base_margin(np.array([], dtype=np.float32) if margin_N is None else margin_N)
    booster = xgb.Booster({**settings, "seed": how["seed"]}, [matrix])
    for iteration in range(how["trees"]):
        check_stop(how.get("stop"))
        booster.update(matrix, iteration)
    check_device(booster, params["device"])
    return bytes(booster.save_raw("ubj"))


def check_device(booster: xgb.Booster, device: str) -> None:
    """Make sure that a booster was trained on the device that was asked for.

    Raises:
        DeviceError: it was not.
    """
    # XGBoost only warns when it falls back to the CPU.
    used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if device.partition(":")[0] != str(used).partition(":")[0]:
        raise DeviceError(f"XGBoost was asked for {device} but trained on {used}; check the driver and the wheel")
