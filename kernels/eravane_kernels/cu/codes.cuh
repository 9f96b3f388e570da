// Codes of levels, four to a word.
#pragma once

constexpr unsigned ONES = 0x01010101u;
constexpr unsigned HIGH_BITS = 0xf8f8f8f8u;

// Nonzero if one of four codes is not -1..4. Codes 5 and 6 have the third bit and differ in the other two; every other
// wrong code has upper bits that do not repeat `missing`, the bit that codes with 11 in the second and third place set.
__device__ __forceinline__ unsigned wrong(unsigned codes, unsigned missing) {
    return (((codes ^ codes >> 1) & codes >> 2) & ONES) | ((codes ^ missing * 0xf8u) & HIGH_BITS);
}
