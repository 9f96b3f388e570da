"""Named arrays and values as they come back from disk, each taken out as what this release writes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.errors import LayoutError


class Layout:
    """Checks named arrays while they are read: dtype, dimensions that agree, and that none is left over.

    Args:
        arrays: by name.
        sizes: dimension -> its size, where it is known; any other has the size of the array that names it first.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], **sizes: int) -> None:
        self._arrays, self._sizes, self._taken = arrays, sizes, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def fix(self, **sizes: int) -> None:
        """Set sizes of dimensions that no array has named yet."""
        self._sizes = {**sizes, **self._sizes}

    def names(self, prefix: str) -> list[str]:
        """Names that start with a prefix."""
        return [name for name in self._arrays if name.startswith(prefix)]

    def numbers(self, prefix: str) -> list[int]:
        """Numbers that follow a prefix in names, in their order.

        Raises:
            LayoutError: something else follows it.
        """
        ends = [name.removeprefix(prefix) for name in self.names(prefix)]
        odd = [prefix + end for end in ends if not (end.isascii() and end.isdecimal())]
        if odd:
            raise LayoutError(f"does not know {odd[0]!r}")
        return [int(end) for end in ends]

    def take(self, name: str, dtype: str, *dimensions: str | int) -> NDArray[Any]:
        """An array, checked; of dimensions of the same name all arrays have the same size.

        Args:
            name: of the array; dtype: its dtype, such as "f8"; dimensions: name or size of each.

        Raises:
            LayoutError: it is missing, or of another dtype or shape.
        """
        if name not in self._arrays:
            raise LayoutError(f"misses {name!r}")
        array = self._arrays[name]
        self._taken.add(name)
        sizes = dict(self._sizes)
        fits = array.dtype == np.dtype(dtype) and array.ndim == len(dimensions)
        for dimension, size in zip(dimensions, array.shape if fits else (), strict=False):
            fits &= size == (sizes.setdefault(dimension, size) if isinstance(dimension, str) else dimension)
        if not fits:
            wanted = ", ".join(str(self._sizes.get(str(dimension), dimension)) for dimension in dimensions)
            raise LayoutError(
                f"reads {name!r} as {np.dtype(dtype)} [{wanted}], and finds {array.dtype} "
                f"[{', '.join(map(str, array.shape))}]"
            )
        self._sizes = sizes
        return array

    def end(self, *prefixes: str) -> None:
        """Check that nothing is left over, but names of other prefixes.

        Raises:
            LayoutError: it does not know a name.
        """
        unknown = [name for name in self._arrays if name not in self._taken and not name.startswith(prefixes)]
        if unknown:
            raise LayoutError(f"does not know {unknown[0]!r}")


def value_of(values: Mapping[str, object], name: str, kind: type | tuple[type, ...]) -> Any:
    """A value of a JSON object, checked.

    Raises:
        LayoutError: it is missing, or of another type.
    """
    if not isinstance(values, Mapping) or name not in values:
        raise LayoutError(f"misses {name!r}")
    found = values[name]
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise LayoutError(f"does not understand {name!r}: {found!r:.60}")
    return found
