"""Names of the array types of the engine; shapes end the arrays' own names (`x_CN`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Values = NDArray[np.int8] | NDArray[np.float32]
"""Feature values: int8 levels (-1 missing) or float32 (NaN missing)."""
