"""A double of CuPy's arrays: NumPy's, kept apart from those of the host as strictly as a GPU's are.

What CuPy refuses fails here too: an operation, an index or an assignment that takes a host array. Results are device
arrays, also of no axes where NumPy would give a scalar. Memory that nobody has written holds POISON, not zeros by luck.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

POISON = 0xCD

Host = np.ndarray[Any, Any]


class DeviceArray(np.ndarray[Any, Any]):
    """An array on the emulated device."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **named: Any) -> Any:
        return _device_call(getattr(ufunc, method), inputs, named)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _device_call(function, args, kwargs)

    def get(self) -> Host:
        """A copy on the host."""
        return np.array(self, subok=False)

    def __getitem__(self, index: Any) -> Any:
        return to_device(_host_view(self)[_plain(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        _host_view(self)[_plain(index)] = _plain(value)


class DeviceNumpy:
    """NumPy's functions on device arrays, as the module `cupy` has CuPy's."""

    ndarray = DeviceArray
    __name__ = "CuPy"

    def __init__(self, module: ModuleType = np) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):
            return DeviceNumpy(found)
        return lambda *args, **kwargs: _device_call(found, args, kwargs)

    def asarray(self, values: Any, order: Any = "K") -> DeviceArray:
        """A copy of a host array on the device."""
        return np.array(values, order=order, subok=False).view(DeviceArray)

    def empty(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        """Memory that nobody has written."""
        array = np.empty(shape, dtype=dtype)
        array.reshape(-1).view(np.uint8)[:] = POISON
        return array.view(DeviceArray)


def to_device(value: Any) -> Any:
    """NumPy's arrays and scalars as device arrays; anything else as it is."""
    return np.asarray(value).view(DeviceArray) if isinstance(value, np.ndarray | np.generic) else value


def _device_call(function: Any, args: Any, kwargs: Any) -> Any:
    result = function(*_plain(args), **_plain(kwargs))
    if not isinstance(result, tuple):
        return to_device(result)
    parts = map(to_device, result)
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


def _plain(value: Any) -> Any:
    """The same with device arrays as NumPy's to compute with; TypeError for an array of the host."""
    if isinstance(value, DeviceArray):
        return _host_view(value)
    if isinstance(value, np.ndarray):
        raise TypeError("an array of the host among those of the device")
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _host_view(array: DeviceArray) -> Host:
    return array.view(np.ndarray)
