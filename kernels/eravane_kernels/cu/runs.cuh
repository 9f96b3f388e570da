// A run: the rows of one era (or of a window of eras) in one column, contiguous in memory, aligned to its type alone.
//
// Every array of values is columns x rows, columns `ld` values apart (any number, 0 and less too). Offsets are 64-bit,
// since the full data hold more than 2^31 cells; a run itself has at most 2^30 rows (checked before the launch).
#pragma once

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int VECTOR_BYTES = 16;

struct Run {
    long long column, era, begin, cell;   // cell: of a result [eras, columns]
    int rows;
};

// All runs of a launch, the eras of a column side by side as they lie in memory.
struct Runs {
    const long long *begins, *ends;
    long long eras, columns;

    __device__ __forceinline__ long long count() const { return eras * columns; }
    __device__ __forceinline__ Run operator[](long long number) const {
        const long long column = number / eras, era = number - column * eras, begin = begins[era];
        return {column, era, begin, era * columns + column, static_cast<int>(ends[era] - begin)};
    }
};

// The number of a warp in the grid, and of all warps: a warp that takes runs begins with one and steps by the other.
template <int THREADS> __device__ __forceinline__ long long first_warp() {
    return static_cast<long long>(blockIdx.x) * (THREADS / WARP) + threadIdx.x / WARP;
}
template <int THREADS> __device__ __forceinline__ long long all_warps() {
    return static_cast<long long>(gridDim.x) * (THREADS / WARP);
}

// A run cut at 16-byte boundaries: `head` values, `vectors` of 16 bytes, `tail` values; head and tail are shorter than
// a vector.
struct Split {
    int head, vectors, tail;
};

template <class T> __device__ __forceinline__ Split split(const T* values, int rows) {
    constexpr int PER_VECTOR = VECTOR_BYTES / sizeof(T);
    const unsigned long long beyond = -reinterpret_cast<unsigned long long>(values) & (VECTOR_BYTES - 1);
    const int head = min(static_cast<int>(beyond / sizeof(T)), rows);
    const int vectors = (rows - head) / PER_VECTOR;
    return {head, vectors, rows - head - vectors * PER_VECTOR};
}
