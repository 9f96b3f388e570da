// Records: the levels of a tree's columns row by row, two columns a byte, and the stages in which rows are worked on.
#pragma once
#include "wide.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int STAGE = 512;              // rows whose records lie in shared memory at once
constexpr int GROUPS = STAGE / 4;       // four rows fill a word with a byte of each
constexpr int PITCH = GROUPS + 1;       // words from one byte of the records to the next: odd, against bank conflicts
constexpr int TILE = 32;                // bytes of a record that are worked on at once: a sector
constexpr unsigned CODES = 0x07070707u; // of four cells; -1 is 7
constexpr int HALVED = 32;              // rows of a column in 16 bytes, two to a byte

// The level of a row of a halved column; -1 for missing.
__device__ __forceinline__ signed char level_at(const unsigned char* column, long long row) {
    const int code = __ldg(column + row / 2) >> 4 * (row & 1) & 7;
    return static_cast<signed char>(code == 7 ? -1 : code);
}
