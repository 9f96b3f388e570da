"""Names of the array types that the kernels take and return."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int8]
Counts = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]
Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Columns = npt.NDArray[Any]

MISSING = -1
LEVELS = 5
SLOTS = 6
