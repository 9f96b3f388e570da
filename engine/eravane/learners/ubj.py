"""UBJ, as XGBoost writes models: read and written by whole arrays, in a fraction of the time that JSON takes.

UBJSON (ubjson.org, draft 12) as `xgboost/src/common/json.cc` writes it: keys and lengths are 64-bit, arrays of numbers
are typed and big-endian, an integer takes the smallest type in which it is not the greatest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

# Type marks of arrays and numbers, and of integers by their smallest type.
_ARRAYS = {"f4": b"d", "f8": b"D", "i1": b"i", "i2": b"I", "i4": b"l", "i8": b"L", "u1": b"U"}
_NUMBERS = {mark[0]: np.dtype(">" + kind) for kind, mark in _ARRAYS.items()}
_INTEGERS = (("i", "b", 2**7), ("I", "h", 2**15), ("l", "i", 2**31), ("L", "q", 2**63))
_LENGTH = struct.Struct(">q")
_SCALARS = {ord("T"): True, ord("F"): False, ord("Z"): None}


class Written(bytes):
    """A value that is UBJ already."""


def dump(value: Any) -> bytes:
    """Write dicts, lists, text, integers, arrays of numbers, and what is `Written`."""
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def array_head(kind: str, size: int) -> bytes:
    """What stands before the big-endian values of an array, of a kind as in `numpy.dtype.str`: "f4", "i4", "u1"."""
    return b"[$" + _ARRAYS[kind] + b"#L" + _LENGTH.pack(size)


def list_head(size: int) -> bytes:
    """What stands before the values of a list."""
    return b"[#L" + _LENGTH.pack(size)


def load(data: bytes) -> Any:
    """Read what XGBoost or `dump` wrote; typed arrays come as arrays of NumPy, big-endian and read-only.

    Raises:
        ValueError: it is no UBJ of this kind.
    """
    try:
        value, end = _read(data, 0)
    except (IndexError, KeyError, ValueError, RecursionError, struct.error) as error:
        raise ValueError("not the UBJ that XGBoost writes") from error
    if end != len(data):
        raise ValueError(f"not the UBJ that XGBoost writes: {len(data) - end} bytes are left over")
    return value


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """The value at a place, and where it ends."""
    mark = data[at]
    at += 1
    if mark == ord("{"):
        found: dict[str, Any] = {}
        while data[at] != ord("}"):
            key, at = _read_text(data, at)
            found[key], at = _read(data, at)
        return found, at + 1
    if mark == ord("["):
        return _read_array(data, at)
    if mark == ord("S"):
        return _read_text(data, at)
    if mark in _SCALARS:
        return _SCALARS[mark], at
    kind = _NUMBERS[mark]
    return np.frombuffer(data, kind, 1, at)[0].item(), at + kind.itemsize


def _read_size(data: bytes, at: int) -> int:
    (size,) = _LENGTH.unpack_from(data, at)
    if size < 0:
        raise IndexError
    return int(size)


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    size, begin = _read_size(data, at + 1), at + 9
    return data[begin : begin + size].decode(), begin + size


def _read_array(data: bytes, at: int) -> tuple[Any, int]:
    if data[at] == ord("$"):
        kind = _NUMBERS[data[at + 1]]
        size, begin = _read_size(data, at + 4), at + 12
        if begin + size * kind.itemsize > len(data):
            raise IndexError
        return np.frombuffer(data, kind, size, begin), begin + size * kind.itemsize
    size, found, at = _read_size(data, at + 2), [], at + 10
    for _ in range(size):
        value, at = _read(data, at)
        found.append(value)
    return found, at


def _write(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, np.ndarray):
        kind = value.dtype.str[1:]
        parts.append(array_head(kind, value.size))
        parts.append(value.astype(">" + kind).tobytes())
    elif isinstance(value, dict):
        parts.append(b"{")
        for key, entry in value.items():
            parts.append(_text(key))
            _write(entry, parts)
        parts.append(b"}")
    elif isinstance(value, Written):
        parts.append(value)
    elif isinstance(value, str):
        parts.append(b"S" + _text(value))
    elif isinstance(value, list):
        parts.append(list_head(len(value)))
        for entry in value:
            _write(entry, parts)
    else:
        parts.append(_integer(value))


@lru_cache(4096)
def _text(value: str) -> bytes:
    """Length and bytes, without a mark."""
    raw = value.encode()
    return b"L" + _LENGTH.pack(len(raw)) + raw


def _integer(value: int) -> bytes:
    mark, form = next((mark, form) for mark, form, bound in _INTEGERS if -bound < value < bound - 1)
    return mark.encode() + struct.pack(f">{form}", value)


def weighs_trees(booster: Mapping[str, Any]) -> bool:
    """Whether a model's `gradient_booster` has a weight per tree, from dropout.

    Such models are named "dart" up to XGBoost 3.2 and "gbtree" after it; the weights lie beside the trees in 3.3, among
    them from 3.4 on.
    """
    return booster["name"] == "dart" or any(len(part.get("weight_drop", ())) for part in (booster, booster["model"]))
