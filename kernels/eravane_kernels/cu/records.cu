// The columns of a tree as records: a row's levels side by side, so that a row gathered later is whole sectors.
//
// Called by cuda/growth.py (Grower). Byte b of a row's record holds the column of place 2b in its lower four bits and
// that of place 2b + 1 in its upper four: the level, 7 for missing, 0 beyond the last column.
//
// Bound: the cells read once and half as many bytes written: for 2.7M rows and 238 columns 642 MB and 346 MB, 0.33 ms
// on an H100.
//
// Shapes: x int8 [C, N], columns `ld` bytes apart, anywhere; column int64 [K], those of the tree; record uint8
// [N, stride], stride 16 or a multiple of 32, at least K / 2, zeros in the rest.
// Launch: THREADS threads a block, any grid; a block takes 64 columns of STAGE rows. Columns are read 16 rows at a
// time, records written 16 bytes at a time.
// Registers: at most 64, no spills.
#include "records.cuh"

constexpr int BLOCKS_PER_SM = 4;

// Cells of a column and of the next, two to a byte.
__device__ __forceinline__ unsigned paired(unsigned low, unsigned high) { return (low & CODES) | (high & CODES) << 4; }

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_pack(
    const signed char* __restrict__ x, long long ld, long long rows, const long long* __restrict__ column,
    long long columns, unsigned char* __restrict__ record, long long stride)
{
    __shared__ unsigned tile[TILE * PITCH];
    constexpr int PIECES = STAGE / WIDE_BYTES;
    const long long tiles = (stride + TILE - 1) / TILE, stages = (rows + STAGE - 1) / STAGE;
    for (long long task = blockIdx.x; task < stages * tiles; task += gridDim.x) {
        const long long begin = task % tiles * TILE, first = task / tiles * STAGE;
        const int bytes = static_cast<int>(min(static_cast<long long>(TILE), stride - begin));
        for (int item = threadIdx.x; item < bytes * PIECES; item += THREADS) {
            const int byte = item / PIECES, piece = item % PIECES;
            const long long k = 2 * (begin + byte), place = first + piece * WIDE_BYTES;
            uint4 low = make_uint4(0, 0, 0, 0), high = low;
            if (k < columns) low = sixteen(x + column[k] * ld, place, rows);
            if (k + 1 < columns) high = sixteen(x + column[k + 1] * ld, place, rows);
            unsigned* to = tile + byte * PITCH + 4 * piece;
            to[0] = paired(low.x, high.x);
            to[1] = paired(low.y, high.y);
            to[2] = paired(low.z, high.z);
            to[3] = paired(low.w, high.w);
        }
        __syncthreads();
        const int group = threadIdx.x % GROUPS, half = threadIdx.x / GROUPS * WIDE_BYTES;
        const long long own = first + 4 * group;
        if (half < bytes && own < rows) {
            uint4 of[4];   // by bytes of the record: four of each of four rows
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned* from = tile + (half + 4 * i) * PITCH + group;
                of[i] = transposed(from[0], from[PITCH], from[2 * PITCH], from[3 * PITCH]);
            }
            uint4* to = reinterpret_cast<uint4*>(record + own * stride + begin + half);
            const long long step = stride / WIDE_BYTES;
            to[0] = make_uint4(of[0].x, of[1].x, of[2].x, of[3].x);
            if (own + 1 < rows) to[step] = make_uint4(of[0].y, of[1].y, of[2].y, of[3].y);
            if (own + 2 < rows) to[2 * step] = make_uint4(of[0].z, of[1].z, of[2].z, of[3].z);
            if (own + 3 < rows) to[3 * step] = make_uint4(of[0].w, of[1].w, of[2].w, of[3].w);
        }
        __syncthreads();
    }
}
