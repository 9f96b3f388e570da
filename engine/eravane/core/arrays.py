"""Names of the array types of the engine; shapes end the arrays' own names (`x_CN`). Arrays of a device on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Values = NDArray[np.int8] | NDArray[np.float32]
"""Feature values: int8 levels (-1 missing) or float32 (NaN missing)."""


Named = dict[str, NDArray[Any]]
"""Arrays by name, as files hold them."""


def on_host(values: object) -> NDArray[Any]:
    """The values as a NumPy array, copied where they lie on a device."""
    return np.asarray(values.get() if hasattr(values, "get") else values)
