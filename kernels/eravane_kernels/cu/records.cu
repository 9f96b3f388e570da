// The columns of a tree as records, a row's levels side by side, so that a row gathered later is whole sectors; the
// root of the tree is counted on the way.
//
// Called by cuda/growth.py: grow_halve once for all trees, grow_pack_* for every tree. Columns lie on the device at four
// bits a cell. Byte b of a row's record holds the column of place 2b in its lower four bits and that of place 2b + 1 in
// its upper four: the level, 7 for missing, 0 beyond the last column. What a block packs lies in shared memory as the
// sums need it, so that the first tree's root is counted without reading its records again.
//
// Bound, for 2.7M rows and 238 columns on an H200 (4.3 TB/s; not measured): 321 MB of halved columns read, 346 MB of
// records and 11 MB of quanta: 0.16 ms; counting 6.4e8 cells 0.16 ms beside it. Packing from bytes and counting the
// root afterwards would move 642 + 346 + 346 MB: 0.31 ms, and the counting's instructions came after it.
//
// Shapes: x int8 [C, N], columns `ld` bytes apart, anywhere; half uint8 [C, ld], row 2i in the lower four bits of byte i,
// columns aligned to 16 bytes and padded with zeros to whole 16 bytes; wrong, missing uint32 [C], values that are no
// level, and vectors with a missing one; column int64 [rounds, K], those of the tree in row turn[0]; record uint8
// [N, stride], stride 16 or a multiple of 32, at least K / 2, zeros in the rest; quanta and counted as in grow.cu, of
// the first tree.
// Launch: THREADS threads a block, any grid; a block of grow_pack_* takes 64 columns of CHUNK rows, in stages.
// Registers: at most 128, no spills.
#include "growsums.cuh"

constexpr int BLOCKS_PER_SM = 2, BLOCKS_OF_HALVES = 8;

// Four bits of each of eight rows.
__device__ __forceinline__ unsigned halved(unsigned low, unsigned high) {
    const unsigned first = low & CODES, second = high & CODES;
    return __byte_perm(first | first >> 4, second | second >> 4, 0x6420);
}

__device__ __forceinline__ unsigned missing_in(unsigned codes) { return codes >> 1 & codes >> 2 & ONES; }

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_OF_HALVES) grow_halve(
    const signed char* __restrict__ x, long long ld, long long rows, long long columns,
    unsigned char* __restrict__ half, long long half_ld, unsigned* __restrict__ wrong_in, unsigned* __restrict__ missing)
{
    const long long pieces = (rows + HALVED - 1) / HALVED;
    for (long long item = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; item < columns * pieces;
         item += static_cast<long long>(gridDim.x) * THREADS) {
        const long long column = item / pieces, place = item % pieces * HALVED;
        const uint4 low = sixteen(x + column * ld, place, rows);
        const uint4 high = place + WIDE_BYTES < rows ? sixteen(x + column * ld, place + WIDE_BYTES, rows)
                                                     : make_uint4(0, 0, 0, 0);
        const unsigned codes[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        unsigned bad = 0, absent = 0;
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            const unsigned none = missing_in(codes[i]);
            bad |= wrong(codes[i], none);
            absent |= none;
        }
        *reinterpret_cast<uint4*>(half + column * half_ld + place / 2) =
            make_uint4(halved(low.x, low.y), halved(low.z, low.w), halved(high.x, high.y), halved(high.z, high.w));
        if (bad) atomicAdd(wrong_in + column, 1u);
        if (absent) atomicAdd(missing + column, 1u);
    }
}

// Cells of a column and of the next for eight rows, four bits each, as two words of four rows.
__device__ __forceinline__ void pair(unsigned low, unsigned high, unsigned* to) {
    const unsigned even = (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4;
    const unsigned odd = (low >> 4 & 0x0f0f0f0fu) | (high & 0xf0f0f0f0u);
    to[0] = __byte_perm(even, odd, 0x5140);
    to[1] = __byte_perm(even, odd, 0x7362);
}

// The cells of a stage's rows into `tile`.
__device__ __forceinline__ void gather(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    long long columns, long long begin, int bytes, long long first, unsigned* tile)
{
    constexpr int PIECES = STAGE / HALVED;
    for (int item = threadIdx.x; item < bytes * PIECES; item += THREADS) {
        const int byte = item / PIECES, piece = item % PIECES;
        const long long k = 2 * (begin + byte), place = first + piece * HALVED;
        uint4 low = make_uint4(0, 0, 0, 0), high = low;
        if (place < rows && k < columns)
            low = __ldg(reinterpret_cast<const uint4*>(half + column[k] * half_ld + place / 2));
        if (place < rows && k + 1 < columns)
            high = __ldg(reinterpret_cast<const uint4*>(half + column[k + 1] * half_ld + place / 2));
        unsigned* to = tile + byte * PITCH + 8 * piece;
        pair(low.x, high.x, to);
        pair(low.y, high.y, to + 2);
        pair(low.z, high.z, to + 4);
        pair(low.w, high.w, to + 6);
    }
}

// The records of a stage's rows out of `tile`.
__device__ __forceinline__ void write(
    const unsigned* tile, unsigned char* __restrict__ record, long long stride, long long begin, int bytes,
    long long first, long long rows)
{
    const int group = threadIdx.x % GROUPS, half = threadIdx.x / GROUPS * WIDE_BYTES;
    const long long own = first + 4 * group;
    if (half >= bytes || own >= rows) return;
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

template <int HESSIAN_BYTES, int USED> __device__ __forceinline__ void pack(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    const long long* __restrict__ turn, long long columns, unsigned char* __restrict__ record, long long stride,
    long long lanes, const unsigned* __restrict__ quanta, unsigned long long* __restrict__ counted)
{
    __shared__ unsigned tile[TILE * PITCH], word[(BYTES + HESSIAN_BYTES) * GROUPS];
    column += turn[0] * columns;
    const long long tiles = (stride + TILE - 1) / TILE, chunks = (rows + CHUNK - 1) / CHUNK;
    const int own = static_cast<int>(lanes), part = threadIdx.x % own, each = THREADS / own;
    for (long long item = blockIdx.x; item < chunks * tiles; item += gridDim.x) {
        const long long begin = item % tiles * TILE, start = item / tiles * CHUNK;
        const int bytes = static_cast<int>(min(static_cast<long long>(TILE), stride - begin));
        const int here = static_cast<int>(min(static_cast<long long>(CHUNK), rows - start));
        Sums<HESSIAN_BYTES, USED> sums{};
        for (int begun = 0; begun < here; begun += STAGE) {
            const long long first = start + begun, place = first + 4 * (threadIdx.x % GROUPS);
            gather(half, half_ld, rows, column, columns, begin, bytes, first, tile);
            weigh<HESSIAN_BYTES>(
                rows, quanta, place, static_cast<int>(min(4LL, start + here - place)), word);
            __syncthreads();
            write(tile, record, stride, begin, bytes, first, rows);
            const int groups = (min(STAGE, here - begun) + 3) / 4;
            if (part < bytes)
                for (int i = threadIdx.x / own; i < groups; i += each) sums.add(tile[part * PITCH + i], word + i);
            __syncthreads();
        }
        flush(sums, own, part, begin, bytes, columns, tile, counted);
    }
}

// Hessians are 0 or 1, and no value is missing.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_pack_rows(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    const long long* __restrict__ turn, long long columns, unsigned char* __restrict__ record, long long stride,
    long long lanes, const unsigned* __restrict__ quanta, unsigned long long* __restrict__ counted)
{
    pack<1, 4>(half, half_ld, rows, column, turn, columns, record, stride, lanes, quanta, counted);
}

// Hessians are 0 or 1.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_pack_rows_missing(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    const long long* __restrict__ turn, long long columns, unsigned char* __restrict__ record, long long stride,
    long long lanes, const unsigned* __restrict__ quanta, unsigned long long* __restrict__ counted)
{
    pack<1, 5>(half, half_ld, rows, column, turn, columns, record, stride, lanes, quanta, counted);
}

// No value is missing.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_pack_weights(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    const long long* __restrict__ turn, long long columns, unsigned char* __restrict__ record, long long stride,
    long long lanes, const unsigned* __restrict__ quanta, unsigned long long* __restrict__ counted)
{
    pack<4, 4>(half, half_ld, rows, column, turn, columns, record, stride, lanes, quanta, counted);
}

// Any Hessians and values.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_pack_weights_missing(
    const unsigned char* __restrict__ half, long long half_ld, long long rows, const long long* __restrict__ column,
    const long long* __restrict__ turn, long long columns, unsigned char* __restrict__ record, long long stride,
    long long lanes, const unsigned* __restrict__ quanta, unsigned long long* __restrict__ counted)
{
    pack<4, 5>(half, half_ld, rows, column, turn, columns, record, stride, lanes, quanta, counted);
}
