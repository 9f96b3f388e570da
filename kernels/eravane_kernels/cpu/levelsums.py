"""Sums of gradients per level, three columns at a time.

Three columns of five levels have 125 joint levels, which fit into a byte. A pass over the rows of a node adds every
row's gradient and Hessian, packed into 64 bits, to one of 125 sums, and the sums of the single columns are drawn from
these: a third of the loads, adds and stores that a pass per column takes. With missing values there are 216.

Bound, per row and three columns, one core at 3 GHz: reading the columns, once per level of the tree, 3 bytes at 10 to
20 GB/s, 0.15 to 0.3 ns from memory, 0.06 ns from the cache; one load of the joint level, one of the packed gradient,
one load and one store of the sum, 1 to 1.5 cycles or 0.33 to 0.5 ns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Integers, Levels
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.growth import Quanta

Codes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.uint16]

SHIFT, WIDE = 17, 32
"""Bits of a packed sum that count rows; bits of a packed summand that hold any Hessian. The others are gradient."""
MOST_ROWS = 3 << 14
"""Rows of a shard: what a level needs of it stays in the second-level cache, and its places are 16 bits. Measured."""
JOINT, PLANE = 256, 40
SUMS = JOINT + PLANE
"""Joint levels of three columns, of two, and room for the sums of both."""
TOGETHER = 3
"""Columns of a group."""


@kernel
def join(a_N: Levels, b_N: Levels, c_N: Levels, base: int, code_N: Codes) -> None:
    """Joint levels of three columns: a + base * b + plane * c, where base 6 gives -1 the digit 0.

    Bytes throughout, which Numba would widen.
    """
    if base == 5:
        for row in range(code_N.shape[0]):
            ab = np.uint8(np.uint8(a_N[row]) + np.uint8(5) * np.uint8(b_N[row]))
            code_N[row] = np.uint8(ab + np.uint8(32) * np.uint8(c_N[row]))
    else:
        for row in range(code_N.shape[0]):
            ab = np.uint8(np.uint8(a_N[row]) + np.uint8(6) * np.uint8(b_N[row]))
            code_N[row] = np.uint8(np.uint8(ab + np.uint8(40) * np.uint8(c_N[row])) + np.uint8(1 + 6 + 40))


@kernel
def gather(gradient_N: Quanta, hessian_N: Quanta, row_n: Places, width: int, packed_n: Integers) -> None:
    """Summands of the rows of a node, side by side: the gradient above `width` bits of Hessian; none are ones."""
    if hessian_N.shape[0] == 0:
        for place in range(row_n.shape[0]):
            packed_n[place] = (np.int64(gradient_N[row_n[place]]) << width) | 1
    else:
        for place in range(row_n.shape[0]):
            row = row_n[place]
            packed_n[place] = (np.int64(gradient_N[row]) << width) | np.int64(hessian_N[row])


@kernel
def add_rows(code_N: Codes, row_n: Places, packed_n: Integers, sum_2J: Integers) -> None:
    """Adds the rows of a node; neighbours go to different sums, so that none waits for the store of the one before."""
    even_J, odd_J = sum_2J[0], sum_2J[1]
    pairs = row_n.shape[0] // 2
    for pair in range(pairs):
        place = 2 * pair
        even_J[code_N[row_n[place]]] += packed_n[place]
        odd_J[code_N[row_n[place + 1]]] += packed_n[place + 1]
    if 2 * pairs < row_n.shape[0]:
        even_J[code_N[row_n[2 * pairs]]] += packed_n[2 * pairs]


@kernel
def add_all(code_N: Codes, packed_N: Integers, sum_2J: Integers) -> None:
    """Adds every row of a shard, in the order they lie."""
    even_J, odd_J = sum_2J[0], sum_2J[1]
    pairs = code_N.shape[0] // 2
    for pair in range(pairs):
        row = 2 * pair
        even_J[code_N[row]] += packed_N[row]
        odd_J[code_N[row + 1]] += packed_N[row + 1]
    if 2 * pairs < code_N.shape[0]:
        even_J[code_N[2 * pairs]] += packed_N[2 * pairs]


@kernel
def add_pairs(code_N: Codes, row_n: Places, packed_n: Integers, sum_2J: Integers) -> None:
    """Adds gradients and Hessians of the rows of a node, each to a sum of its own."""
    gradient_J, hessian_J = sum_2J[0], sum_2J[1]
    for place in range(row_n.shape[0]):
        code, packed = code_N[row_n[place]], packed_n[place]
        gradient_J[code] += packed >> WIDE
        hessian_J[code] += packed & ((1 << WIDE) - 1)


@kernel
def share_out(sum_2J: Integers, base: int, single_3B2: Integers) -> None:
    """Sums of gradients and Hessians of three columns from packed sums of their joint levels, which are cleared."""
    even_J, odd_J = sum_2J[0], sum_2J[1]
    for code in range(JOINT):
        even_J[code] += odd_J[code]
        odd_J[code] = 0
    _share(even_J, base, single_3B2[:, :, 0])
    for which in range(TOGETHER):
        for digit in range(base):
            value = single_3B2[which, digit, 0]
            single_3B2[which, digit, 0] = value >> SHIFT
            single_3B2[which, digit, 1] = value & ((1 << SHIFT) - 1)


@kernel
def share_out_pairs(sum_2J: Integers, base: int, single_3B2: Integers) -> None:
    """The same from sums of gradients, sum_2J[0], and of Hessians, sum_2J[1]."""
    for part in range(2):
        _share(sum_2J[part], base, single_3B2[:, :, part])


@kernel
def _share(sum_J: Integers, base: int, single_3B: Integers) -> None:
    """Sums of single columns from those of joint levels, which are zero afterwards."""
    plane, plane_J = 32 if base == 5 else PLANE, sum_J[JOINT:]
    for c in range(base):
        of_c, first = np.int64(0), c * plane
        for ab in range(plane):
            value = sum_J[first + ab]
            sum_J[first + ab] = 0
            plane_J[ab] += value
            of_c += value
        single_3B[2, c] = of_c
    for digit in range(base):
        of_a, of_b = np.int64(0), np.int64(0)
        for other in range(base):
            of_a += plane_J[digit + base * other]
            of_b += plane_J[other + base * digit]
        single_3B[0, digit], single_3B[1, digit] = of_a, of_b
    for ab in range(plane):
        plane_J[ab] = 0
