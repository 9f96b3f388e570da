// Sums of gradients and Hessians of a node's rows by level of a column, four rows at a time.
//
// Gradients and Hessians are cut into bytes, and bytes of four rows lie in a word; a plane of the codes of four rows
// picks among them with __dp4a. Levels follow from planes by subtraction, as in levels.cu.
#pragma once
#include "runs.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int CHUNK = 2048;             // rows a block takes at once, as CHUNK in cuda/growth.py
constexpr int WORDS = CHUNK / 4;
constexpr int PLANES = 5;
constexpr int BYTES = 4;                // of a gradient, the sign bit turned so that it is unsigned
constexpr int ID = 0, FIRST = 1, ROWS = 2, GRADIENT = 3, HESSIAN = 4, COUNTED = 5, PARENT = 6, FIELDS = 8;
constexpr unsigned ONES = 0x01010101u;

// The split that a chunk belongs to.
__device__ __forceinline__ long long split_of(const long long* task, long long splits, long long chunk) {
    long long low = 0, high = splits;
    while (high - low > 1) {
        const long long middle = (low + high) / 2;
        if (task[middle] <= chunk) low = middle; else high = middle;
    }
    return low;
}

// Sums over four rows a word of bytes of gradients and Hessians, per plane of the codes.
template <int HESSIAN_BYTES> struct Planes {
    unsigned sum[PLANES][BYTES + HESSIAN_BYTES], rows[PLANES];

    __device__ __forceinline__ void add(unsigned codes, const unsigned* word) {
        const unsigned one = codes & ONES, two = codes >> 1 & ONES, four = codes >> 2 & ONES;
        const unsigned mask[PLANES] = {one, two, four, one & two, two & four};
        #pragma unroll
        for (int byte = 0; byte < BYTES + HESSIAN_BYTES; byte++) {
            const unsigned values = word[byte * WORDS];
            #pragma unroll
            for (int plane = 0; plane < PLANES; plane++)
                sum[plane][byte] = __dp4a(mask[plane], values, sum[plane][byte]);
        }
        #pragma unroll
        for (int plane = 0; plane < PLANES; plane++) rows[plane] = __dp4a(mask[plane], ONES, rows[plane]);
    }

    // Sums over the warp, added to those of the column by its first lane.
    __device__ __forceinline__ void flush(unsigned long long* out, int lane) {
        #pragma unroll
        for (int plane = 0; plane < PLANES; plane++) {
            unsigned long long gradient = 0, hessian = 0;
            #pragma unroll
            for (int byte = 0; byte < BYTES + HESSIAN_BYTES; byte++) {
                const unsigned long long all = __reduce_add_sync(ALL_LANES, sum[plane][byte]);
                if (byte < BYTES) gradient += all << 8 * byte; else hessian += all << 8 * (byte - BYTES);
            }
            gradient -= static_cast<unsigned long long>(__reduce_add_sync(ALL_LANES, rows[plane])) << 31;
            if (lane == 0 && (gradient | hessian)) {
                atomicAdd(out + 2 * plane, gradient);
                atomicAdd(out + 2 * plane + 1, hessian);
            }
        }
    }
};

// Sums of the rows of the smaller children (of all rows where `root`), a chunk of rows a block, a column a warp.
template <int HESSIAN_BYTES> __device__ __forceinline__ void count(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ column, long long columns,
    const unsigned* __restrict__ order, const int* __restrict__ gradient, const int* __restrict__ hessian,
    const long long* __restrict__ level, const long long* __restrict__ task, const long long* __restrict__ state,
    long long root, unsigned long long* __restrict__ counted)
{
    __shared__ unsigned row[CHUNK], word[(BYTES + HESSIAN_BYTES) * WORDS];
    const long long splits = root ? 1 : state[0];
    for (long long chunk = blockIdx.x; splits && chunk < task[splits]; chunk += gridDim.x) {
        const long long split = split_of(task, splits, chunk);
        const long long node = root ? 0 : 2 * split + (level[2 * split * FIELDS + COUNTED] ? 0 : 1);
        const long long done = (chunk - task[split]) * CHUNK, first = level[node * FIELDS + FIRST] + done;
        const int rows = static_cast<int>(min(static_cast<long long>(CHUNK), level[node * FIELDS + ROWS] - done));
        for (int i = threadIdx.x; i < WORDS; i += THREADS) {
            unsigned bytes[BYTES + HESSIAN_BYTES] = {};
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                const int place = 4 * i + j;
                const unsigned own = place < rows ? order[first + place] : 0;
                row[place] = own;
                if (place >= rows) continue;
                const unsigned g = static_cast<unsigned>(gradient[own]) ^ 0x80000000u, h = hessian[own];
                #pragma unroll
                for (int byte = 0; byte < BYTES; byte++) bytes[byte] |= (g >> 8 * byte & 255u) << 8 * j;
                #pragma unroll
                for (int byte = 0; byte < HESSIAN_BYTES; byte++) bytes[BYTES + byte] |= (h >> 8 * byte & 255u) << 8 * j;
            }
            #pragma unroll
            for (int byte = 0; byte < BYTES + HESSIAN_BYTES; byte++) word[byte * WORDS + i] = bytes[byte];
        }
        __syncthreads();
        const int lane = threadIdx.x % WARP;
        for (long long k = threadIdx.x / WARP; k < columns; k += WARPS) {
            const unsigned char* values = reinterpret_cast<const unsigned char*>(x + column[k] * ld);
            Planes<HESSIAN_BYTES> planes{};
            for (int i = lane; 4 * i < rows; i += WARP) {
                unsigned codes = 0;
                #pragma unroll
                for (int j = 0; j < 4; j++)
                    if (4 * i + j < rows) codes |= static_cast<unsigned>(__ldg(values + row[4 * i + j])) << 8 * j;
                planes.add(codes, word + i);
            }
            planes.flush(counted + (split * columns + k) * PLANES * 2, lane);
        }
        __syncthreads();
    }
}
