"""UBJ, as XGBoost writes models: read and written by whole arrays, in a fraction of the time that JSON takes.

UBJSON (ubjson.org, draft 12) as `xgboost/src/common/json.cc` writes it: keys and lengths are 64-bit, arrays of numbers
are typed and big-endian, an integer takes the smallest type in which it is not the greatest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# Type marks of arrays and numbers, and of integers by their smallest type.
_ARRAYS = {"f4": b"d", "f8": b"D", "i1": b"i", "i2": b"I", "i4": b"l", "i8": b"L", "u1": b"U"}
_NUMBERS = {mark[0]: np.dtype(">" + kind) for kind, mark in _ARRAYS.items()}
_INTEGERS = (("i", "b", 2**7), ("I", "h", 2**15), ("l", "i", 2**31), ("L", "q", 2**63))
_FORMS = {ord(mark): struct.Struct(">" + form) for mark, form in zip("dDiIlLU", "fdbhiqB", strict=True)}
_LENGTH = struct.Struct(">q")
_SCALARS = {ord("T"): True, ord("F"): False, ord("Z"): None}


# Arrays of a tree in XGBoost's order, by their kind; with the place of its number, which is no array.
_NUMBERED = "id"
_ONLY_CATEGORICAL = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_ARRAYS_OF_A_TREE = (
    ("base_weights", "f4"), ("categories", "i4"), ("categories_nodes", "i4"), ("categories_segments", "i8"),
    ("categories_sizes", "i8"), ("default_left", "u1"), (_NUMBERED, ""), ("left_children", "i4"),
    ("loss_changes", "f4"), ("parents", "i4"), ("right_children", "i4"), ("split_conditions", "f4"),
    ("split_indices", "i4"), ("split_type", "u1"), ("sum_hessian", "f4"),
)  # fmt: skip
NODES: Mapping[str, str] = {
    "default_left": "u1", "left_children": ">i4", "right_children": ">i4", "split_conditions": ">f4",
    "split_indices": ">i4", "split_type": "u1",
}  # fmt: skip
"""Arrays of `JoinedTrees`."""


@dataclass(frozen=True, eq=False)
class JoinedTrees:
    """Trees whose nodes lie one tree after the other.

    Attributes:
        counts: nodes of each tree.
        values: name of an array, of `NODES`, to the values of all nodes; children count from 0 in every tree.
    """

    counts: Sequence[int]
    values: Mapping[str, np.ndarray[Any, Any]]

    @classmethod
    def of(cls, trees: Sequence[Mapping[str, Any]]) -> JoinedTrees:
        """Trees that were read one by one."""
        values = {name: np.concatenate([tree[name] for tree in trees]) for name in NODES}
        return cls([len(tree["left_children"]) for tree in trees], values)

    def picked(self, which: slice) -> JoinedTrees:
        """Some of the trees."""
        place_T = np.arange(len(self.counts))[which]
        node_K = np.isin(np.repeat(np.arange(len(self.counts)), self.counts), place_T)
        counts = np.array(self.counts)[place_T].tolist()
        return JoinedTrees(counts, {name: value_K[node_K] for name, value_K in self.values.items()})


class Written(bytes):
    """A value that is UBJ already."""


def dump(value: object) -> bytes:
    """Write dicts, lists, text, integers, arrays of numbers, and what is `Written`."""
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def array_head(kind: str, size: int) -> bytes:
    """Bytes before the big-endian values of an array, of a kind as in `numpy.dtype.str`: "f4", "i4", "u1"."""
    return b"[$" + _ARRAYS[kind] + b"#L" + _LENGTH.pack(size)


def list_head(size: int) -> bytes:
    """Bytes before the values of a list."""
    return b"[#L" + _LENGTH.pack(size)


def load(data: bytes, *, joined: bool = False) -> Any:
    """Read what XGBoost or `dump` wrote; typed arrays come as arrays of NumPy, big-endian and read-only.

    Args:
        data: the UBJ.
        joined: read the trees of a model as one `JoinedTrees`, in a fraction of the time, where all are numeric.

    Raises:
        ValueError: it is no UBJ of this kind.
    """
    try:
        value, end = _read(data, 0, joined)
    except (IndexError, KeyError, ValueError, RecursionError, struct.error) as error:
        raise ValueError("not the UBJ that XGBoost writes") from error
    if end != len(data):
        raise ValueError(f"not the UBJ that XGBoost writes: {len(data) - end} bytes are left over")
    return value


def _read(data: bytes, at: int, joined: bool = False) -> tuple[Any, int]:
    """The value at a place, and where it ends."""
    mark = data[at]
    at += 1
    if mark == ord("{"):
        found: dict[str, Any] = {}
        while data[at] != ord("}"):
            key, at = _read_text(data, at)
            trees = _read_trees(data, at) if joined and key == "trees" else None
            found[key], at = trees or _read(data, at, joined)
        return found, at + 1
    if mark == ord("["):
        return _read_array(data, at)
    if mark == ord("S"):
        return _read_text(data, at)
    if mark in _SCALARS:
        return _SCALARS[mark], at
    form = _FORMS[mark]
    return form.unpack_from(data, at)[0], at + form.size


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
    size, found, at = _read_size(data, at + 2), list[Any](), at + 10
    if data[at : at + 1] == b"S":
        found, at = _read_texts(data, at, size)
    while len(found) < size:
        value, at = _read(data, at)
        found.append(value)
    return found, at


def _read_texts(data: bytes, at: int, most: int) -> tuple[list[Any], int]:
    """Texts from a place on, as many as follow each other, and where they end: a model names thousands of columns."""
    text, end = _read_text(data, at + 1)
    if most * (end - at) <= len(data) - at and data.startswith(data[at:end] * most, at):  # the types of columns
        return [text] * most, at + most * (end - at)
    found, begin, mark, length = list[Any](), at + 10, ord("S"), _LENGTH.unpack_from
    while len(found) < most and data[begin - 10] == mark:
        (size,) = length(data, begin - 8)
        if size < 0:
            raise IndexError
        found.append(data[begin : begin + size].decode())
        begin += size + 10
    return found, begin - 10


@lru_cache(4096)
def _text(value: str) -> bytes:
    """Length and bytes, without a mark."""
    raw = value.encode()
    return b"L" + _LENGTH.pack(len(raw)) + raw


def _read_trees(data: bytes, at: int) -> tuple[JoinedTrees, int] | None:
    """A list of trees and where it ends; None where one is not laid out as XGBoost lays out trees of numeric splits."""
    before = list_head(0)[: -_LENGTH.size]
    if not data.startswith(before, at):
        return None
    size, at = _read_size(data, at + len(before)), at + len(before) + _LENGTH.size
    counts, values = list[int](), {name: list[bytes]() for name in NODES}
    opening = b"{" + _text(_ARRAYS_OF_A_TREE[0][0]) + array_head(_ARRAYS_OF_A_TREE[0][1], 0)[: -_LENGTH.size]
    for _ in range(size):
        if not data.startswith(opening, at):
            return None
        nodes = _read_size(data, at + len(opening))
        for skipped, head, name, width in _heads(nodes):
            if not data.startswith(head, at + skipped):
                return None
            begin = at + skipped + len(head)
            at = begin + width
            if name == _NUMBERED:  # an integer of one to eight bytes
                at += _FORMS[data[begin]].size + 1
            elif name:
                values[name].append(data[begin:at])
        counts.append(nodes)
        end = data.find(b"}", at)  # of the tree's sizes, which are texts, and behind it that of the tree
        if data[end : end + 2] != b"}}":
            return None
        at = end + 2
    return JoinedTrees(
        counts, {name: np.frombuffer(b"".join(parts), NODES[name]) for name, parts in values.items()}
    ), at


@lru_cache(4096)
def _heads(nodes: int) -> tuple[tuple[int, bytes, str, int], ...]:
    """Layout of a tree of so many nodes, by array that is read: bytes skipped, bytes that precede it, name, its bytes.

    The last entry, without a name, is what follows the last array.
    """
    found, skipped, before = list[tuple[int, bytes, str, int]](), 0, b"{"
    for name, kind in _ARRAYS_OF_A_TREE:
        empty = name in _ONLY_CATEGORICAL
        before += _text(name) + (array_head(kind, 0 if empty else nodes) if kind else b"")
        if empty:
            continue
        width = np.dtype(kind).itemsize * nodes if kind else 0
        if name in NODES or name == _NUMBERED:
            found.append((skipped, before, name, width))
            skipped = 0
        else:
            skipped += len(before) + width
        before = b""
    return (*found, (skipped, _text("tree_param") + b"{", "", 0))


def _write(value: object, parts: list[bytes]) -> None:
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


@lru_cache(1 << 16)
def _integer(value: int) -> bytes:
    mark, form = next((mark, form) for mark, form, bound in _INTEGERS if -bound < value < bound - 1)
    return mark.encode() + struct.pack(f">{form}", value)


def tree_weights(booster: Mapping[str, Any]) -> Sequence[float]:
    """The weights of the trees of a model's `gradient_booster`, from dropout; empty where it has none.

    Such models are named "dart" up to XGBoost 3.2 and "gbtree" after it; the weights lie beside the trees' model up to
    3.3, in it from 3.4 on.
    """
    found = (part["weight_drop"] for part in (booster, tree_model(booster)) if len(part.get("weight_drop", ())))
    return next(found, ())


def tree_model(booster: Mapping[str, Any]) -> Any:
    """The part of a `gradient_booster` that holds the trees."""
    return booster.get("gbtree", booster)["model"]


def weighs_trees(booster: Mapping[str, Any]) -> bool:
    """Whether a model's `gradient_booster` has a weight per tree, from dropout."""
    return booster["name"] == "dart" or len(tree_weights(booster)) > 0
