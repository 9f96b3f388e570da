"""Labels and weights of rows as people hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.utils import check_array

from eravane.core.errors import DataError


def labels_of(y: object, rows: int, name: str, what: str = "y") -> NDArray[np.float32]:
    """Labels as float32 [N] or [N, K], NaN where unknown.

    Args:
        y: pandas, polars, Arrow, NumPy or a list.
        rows: N.
        name: of the estimator.
        what: the labels' name in messages.

    Raises:
        DataError: they are no numbers, too many or too few, infinite, or all unknown; the row is named.
    """
    if y is None:
        raise DataError(f"{name} requires y to be passed, but the target y is None ({what})")
    y = _plain(y, what)
    try:
        label = check_array(
            y, ensure_2d=False, ensure_all_finite=False, dtype=None, input_name=what, ensure_min_samples=0,
            allow_nd=True,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: {error}") from error
    label = _numbers(label, what)
    if label.ndim not in (1, 2):
        raise DataError(f"{what}: expected labels [N] or [N, K], given {label.ndim} axes")
    if len(label) != rows:
        raise DataError(f"{what}: Found input variables with inconsistent numbers of samples: {[rows, len(label)]}")
    with np.errstate(over="ignore"):
        label = label.astype(np.float32)
    infinite = np.isinf(label)
    if infinite.any():
        row = int(np.argwhere(infinite)[0][0])
        raise DataError(f"Input {what} contains infinity or a value too large for dtype('float32'): row {row}")
    if np.isnan(label).all(axis=0).any():
        raise DataError(f"Input {what} contains NaN in every row; there is nothing to learn from")
    return np.ascontiguousarray(label[:, 0] if label.ndim == 2 and label.shape[1] == 1 else label)


def _plain(values: object, what: str) -> Any:
    """Values of a series, a frame or an Arrow array as NumPy has them; anything else as it is.

    Raises:
        DataError: some are masked.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{what}: a masked array; fill what is masked, with NaN where it is unknown")
    if isinstance(values, pa.Array):
        return values.to_numpy(zero_copy_only=False)
    return values.to_numpy() if hasattr(values, "to_numpy") and not isinstance(values, np.ndarray) else values


def _singles(values: object, name: str) -> NDArray[np.float32]:
    """Values as float32.

    Raises:
        DataError: they are no numbers, or masked.
    """
    values = _plain(values, name)
    if isinstance(values, np.ndarray) and values.dtype.kind in "cmM":
        raise DataError(f"{name}: expected numbers, given {values.dtype}")
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers, given {type(values).__name__}: {error}") from error


def _numbers(label: NDArray[Any], what: str) -> NDArray[Any]:
    """Labels as numbers; whatever pandas takes for missing is NaN."""
    if label.dtype.kind in "iufb":
        return label
    if label.dtype.kind != "O":
        raise DataError(f"{what}: expected numbers, given {label.dtype}")
    found = np.full(label.shape, np.nan)
    known = ~pd.isna(label)
    try:
        found[known] = label[known].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: expected numbers, given {label.dtype}: {error}") from error
    return found


def weights_of(weights: object, rows: int, name: str) -> NDArray[np.float32] | None:
    """Weights of rows as float32 [N]; None where there are none.

    Raises:
        DataError: they are no numbers, too many or too few, negative, infinite or all zero; the row is named.
    """
    if weights is None:
        return None
    if np.isscalar(weights) and not isinstance(weights, str):
        weights = np.full(rows, weights)
    weight_N = _singles(weights, name)
    if weight_N.shape != (rows,):
        raise DataError(f"{name}.shape == {weight_N.shape}, expected {(rows,)}!")
    bad_N = ~(np.isfinite(weight_N) & (weight_N >= 0))
    if bad_N.any():
        row = int(bad_N.argmax())
        raise DataError(f"{name}: expected finite weights of 0 or more, given {weight_N[row]} at row {row}")
    if not weight_N.any():
        raise DataError(f"{name}: every weight is zero; there is nothing to learn from")
    return weight_N


def margins_of(margins: object, shape: tuple[int, ...], name: str) -> NDArray[np.float32] | None:
    """Outputs that trees are added to, float32 of the labels' shape; None where there are none.

    Raises:
        DataError: they are no finite numbers, too many or too few.
    """
    if margins is None:
        return None
    margin = _singles(margins, name)
    if margin.shape == (shape[0], 1) and len(shape) == 1:
        margin = margin[:, 0]
    if margin.shape != shape:
        raise DataError(f"{name}: expected one number per row and target, shape {shape}, given {margin.shape}")
    if not np.isfinite(margin).all():
        row = int(np.argwhere(~np.isfinite(margin))[0][0])
        raise DataError(f"{name}: expected finite numbers, given {margin[row]} at row {row}")
    return margin
