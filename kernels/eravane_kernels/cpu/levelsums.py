"""Sums of gradients per level, three columns at a time.

Three columns of five levels have 125 joint levels, which fit into a byte. A pass over the rows of a node adds every
row's gradient and Hessian, packed into 64 bits, to one of 125 sums, and the sums of the single columns are drawn from
these: a third of the loads, adds and stores that a pass per column takes. With missing values there are 216. A pass
serves three such groups, so that the row's place and its summand are loaded once for nine columns, and that no addition
waits for the store of the one before.

Bound, per row and three columns, one core at 3 GHz: reading the columns, once per level of the tree, 3 bytes at 10 to
20 GB/s, 0.15 to 0.3 ns from memory, 0.06 ns from the cache; one load of the joint level, a third of one of the place
and one of the summand, one load and one store of the sum, 1 cycle or 0.33 ns (measured .33 in large nodes, .5 to .6 in
small ones, whose rows lie apart). Per node, shard and group: 320 sums of joint levels are read and cleared in vectors
of 8, 80 loads and stores or about 40 cycles, and 55 scalar additions, 20 cycles: 20 ns (measured 45 to 85). Where
a node counts few rows of a shard, their single columns are summed instead: three loads, and three loads and stores of
sums, per row, some 4 cycles, and nothing per node but 15 sums.
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
TOGETHER, GROUPS = 3, 3
"""Columns of a group, and groups that a pass serves."""
FEW = 64
"""Rows of a node in a shard up to which single columns are summed one by one: what a node costs, whatever its rows, is
then more than two more additions a row. Measured."""


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
def add(codes: int, code_GN: Codes, row_n: Places, packed_n: Integers, sum_TJ: Integers) -> None:
    """Adds the rows of a node to the sums of one to three groups, sum_TJ[group]; of one alone to sum_TJ[0] and [1]."""
    if codes == 3:
        _add_three(code_GN[0], code_GN[1], code_GN[2], row_n, packed_n, sum_TJ[0], sum_TJ[1], sum_TJ[2])
    elif codes == 2:
        _add_two(code_GN[0], code_GN[1], row_n, packed_n, sum_TJ[0], sum_TJ[1])
    else:
        _add_one(code_GN[0], row_n, packed_n, sum_TJ[0], sum_TJ[1])


@kernel
def add_all(codes: int, code_GN: Codes, packed_N: Integers, sum_TJ: Integers) -> None:
    """Adds every row of a shard, in the order they lie; see `add`."""
    if codes == 3:
        a_N, b_N, c_N = code_GN[0], code_GN[1], code_GN[2]
        a_J, b_J, c_J = sum_TJ[0], sum_TJ[1], sum_TJ[2]
        for row in range(packed_N.shape[0]):
            packed = packed_N[row]
            a_J[a_N[row]] += packed
            b_J[b_N[row]] += packed
            c_J[c_N[row]] += packed
    elif codes == 2:
        a_N, b_N, a_J, b_J = code_GN[0], code_GN[1], sum_TJ[0], sum_TJ[1]
        for row in range(packed_N.shape[0]):
            packed = packed_N[row]
            a_J[a_N[row]] += packed
            b_J[b_N[row]] += packed
    else:
        a_N, even_J, odd_J = code_GN[0], sum_TJ[0], sum_TJ[1]
        pairs = packed_N.shape[0] // 2
        for pair in range(pairs):
            row = 2 * pair
            even_J[a_N[row]] += packed_N[row]
            odd_J[a_N[row + 1]] += packed_N[row + 1]
        if 2 * pairs < packed_N.shape[0]:
            even_J[a_N[2 * pairs]] += packed_N[2 * pairs]


@kernel
def _add_three(
    a_N: Codes, b_N: Codes, c_N: Codes, row_n: Places, packed_n: Integers, a_J: Integers, b_J: Integers, c_J: Integers
) -> None:
    for place in range(row_n.shape[0]):
        row, packed = row_n[place], packed_n[place]
        a_J[a_N[row]] += packed
        b_J[b_N[row]] += packed
        c_J[c_N[row]] += packed


@kernel
def _add_two(a_N: Codes, b_N: Codes, row_n: Places, packed_n: Integers, a_J: Integers, b_J: Integers) -> None:
    for place in range(row_n.shape[0]):
        row, packed = row_n[place], packed_n[place]
        a_J[a_N[row]] += packed
        b_J[b_N[row]] += packed


@kernel
def _add_one(code_N: Codes, row_n: Places, packed_n: Integers, even_J: Integers, odd_J: Integers) -> None:
    """Neighbours go to different sums, so that none waits for the store of the one before."""
    pairs = row_n.shape[0] // 2
    for pair in range(pairs):
        place = 2 * pair
        even_J[code_N[row_n[place]]] += packed_n[place]
        odd_J[code_N[row_n[place + 1]]] += packed_n[place + 1]
    if 2 * pairs < row_n.shape[0]:
        even_J[code_N[row_n[2 * pairs]]] += packed_n[2 * pairs]


@kernel
def add_pairs(code_N: Codes, row_n: Places, packed_n: Integers, gradient_J: Integers, hessian_J: Integers) -> None:
    """Adds gradients and Hessians of the rows of a node, each to a sum of its own."""
    for place in range(row_n.shape[0]):
        code, packed = code_N[row_n[place]], packed_n[place]
        gradient_J[code] += packed >> WIDE
        hessian_J[code] += packed & ((1 << WIDE) - 1)


@kernel
def add_few(
    a_N: Levels, b_N: Levels, c_N: Levels, base: int, row_n: Places, packed_n: Integers, single_3D: Integers
) -> None:
    """Sums of three single columns over the rows of a node, straight from the columns: for few rows."""
    single_3D[:3] = 0
    a_D, b_D, c_D, lowest = single_3D[0], single_3D[1], single_3D[2], np.uint8(base - 5)
    for place in range(row_n.shape[0]):
        row, packed = row_n[place], packed_n[place]
        a_D[np.uint8(np.uint8(a_N[row]) + lowest)] += packed
        b_D[np.uint8(np.uint8(b_N[row]) + lowest)] += packed
        c_D[np.uint8(np.uint8(c_N[row]) + lowest)] += packed


@kernel
def merge(even_J: Integers, odd_J: Integers) -> None:
    """Adds the second sums to the first, and clears them."""
    for code in range(JOINT):
        even_J[code] += odd_J[code]
        odd_J[code] = 0


@kernel
def share_out(sum_J: Integers, base: int, plane_J: Integers, single_3D: Integers) -> None:
    """Sums of three single columns from those of their joint levels, which are zero afterwards.

    plane_J: room for the sums of two columns.
    """
    if base == 5:
        _share_five(sum_J, plane_J, single_3D[2])
    else:
        _share_six(sum_J, plane_J, single_3D[2])
    for digit in range(base):
        of_a, of_b = np.int64(0), np.int64(0)
        for other in range(base):
            of_a += plane_J[digit + base * other]
            of_b += plane_J[other + base * digit]
        single_3D[0, digit], single_3D[1, digit] = of_a, of_b


@kernel
def _share_five(sum_J: Integers, plane_J: Integers, of_c_D: Integers) -> None:
    """Sums over the third column, and over the first two; the lengths are constants, for vectors."""
    first = second = third = fourth = fifth = np.int64(0)
    for ab in range(32):
        one, two, three = sum_J[ab], sum_J[32 + ab], sum_J[64 + ab]
        four, five = sum_J[96 + ab], sum_J[128 + ab]
        first += one
        second += two
        third += three
        fourth += four
        fifth += five
        plane_J[ab] = one + two + three + four + five
    for code in range(160):
        sum_J[code] = 0
    of_c_D[0], of_c_D[1], of_c_D[2], of_c_D[3], of_c_D[4] = first, second, third, fourth, fifth


@kernel
def _share_six(sum_J: Integers, plane_J: Integers, of_c_D: Integers) -> None:
    """The same with missing values."""
    first = second = third = fourth = fifth = sixth = np.int64(0)
    for ab in range(40):
        one, two, three = sum_J[ab], sum_J[40 + ab], sum_J[80 + ab]
        four, five, six = sum_J[120 + ab], sum_J[160 + ab], sum_J[200 + ab]
        first += one
        second += two
        third += three
        fourth += four
        fifth += five
        sixth += six
        plane_J[ab] = one + two + three + four + five + six
    for code in range(240):
        sum_J[code] = 0
    of_c_D[0], of_c_D[1], of_c_D[2], of_c_D[3], of_c_D[4], of_c_D[5] = first, second, third, fourth, fifth, sixth
