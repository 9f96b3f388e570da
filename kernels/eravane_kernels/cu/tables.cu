// Tables per (era, column) that stand for any transform of integer levels: made, joined and applied.
//
// Called by cuda/missing.py (fill_table) and cuda/outliers.py (clip_table, compose_tables, apply_table). A table holds
// six int8, what levels 0, 1, 2, 3, 4 and missing become; as eravane_kernels/tables.py, to the bit.
//
// Shapes: table, first, then int8 [E, C, 6]; value, low, high float64 [E, C], NaN for none; x int8 [C, N], columns `ld`
// bytes apart; begins, ends int64 [E]; out int8 [C, N], columns `out_ld` bytes apart, each with the alignment of x's
// modulo 16 (the launcher allocates it so), so that one split serves both; bad uint8 [E, C], 1 where a run holds another
// value than -1..4, or where an entry of `first` is none (the results are then void).
// Launch: THREADS threads a block, any grid; apply_table a warp a run, the others a thread a table: 8 to 16 bytes read
// and 6 written. Exact. Registers: at most 64, no spills, no shared memory.
#include "codes.cuh"
#include "runs.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;
constexpr int SLOTS = 6, LEVELS = 5;
constexpr double HIGHEST = LEVELS - 1;

// Entries 0..3 in `low`; entry 4 in the first byte of `high`, missing (whose low three bits are 7) in the last.
struct Table {
    unsigned low, high;
};

__device__ __forceinline__ Table load_table(const signed char* entries) {
    const unsigned char* byte = reinterpret_cast<const unsigned char*>(entries);
    const unsigned low = byte[0] | byte[1] << 8 | byte[2] << 16 | static_cast<unsigned>(byte[3]) << 24;
    return {low, byte[4] | static_cast<unsigned>(byte[5]) << 24};
}

// Entries of four codes: their low three bits, gathered to four nibbles, select bytes of the table.
__device__ __forceinline__ unsigned look_up(const Table& table, unsigned codes, unsigned& bad) {
    bad |= wrong(codes, codes >> 1 & codes >> 2 & ONES);
    const unsigned three = codes & 0x07070707u;
    return __byte_perm(table.low, table.high, __byte_perm(three | three >> 4, 0, 0x0020));
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) apply_table(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ begins,
    const long long* __restrict__ ends, long long eras, long long columns, const signed char* __restrict__ table,
    signed char* __restrict__ out, long long out_ld, unsigned char* __restrict__ bad)
{
    const Runs runs{begins, ends, eras, columns};
    const int lane = threadIdx.x % WARP;
    for (long long number = first_warp<THREADS>(); number < runs.count(); number += all_warps<THREADS>()) {
        const Run run = runs[number];
        const unsigned char* from = reinterpret_cast<const unsigned char*>(x + run.column * ld + run.begin);
        signed char* to = out + run.column * out_ld + run.begin;
        const Table entries = load_table(table + run.cell * SLOTS);
        const Split part = split(from, run.rows);
        const int tail = run.rows - part.tail + lane;
        unsigned wrong_here = 0;
        if (lane < part.head) to[lane] = static_cast<signed char>(look_up(entries, from[lane], wrong_here));
        if (lane < part.tail) to[tail] = static_cast<signed char>(look_up(entries, from[tail], wrong_here));
        const uint4* source = reinterpret_cast<const uint4*>(from + part.head);
        uint4* target = reinterpret_cast<uint4*>(to + part.head);
        #pragma unroll 4
        for (int i = lane; i < part.vectors; i += WARP) {
            const uint4 codes = __ldg(source + i);
            target[i] = make_uint4(look_up(entries, codes.x, wrong_here), look_up(entries, codes.y, wrong_here),
                                   look_up(entries, codes.z, wrong_here), look_up(entries, codes.w, wrong_here));
        }
        const int any_wrong = __any_sync(ALL_LANES, wrong_here != 0);
        if (lane == 0) bad[run.cell] = any_wrong != 0;
    }
}

__device__ __forceinline__ long long first_cell() { return blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; }
__device__ __forceinline__ long long all_threads() { return static_cast<long long>(gridDim.x) * THREADS; }

// A whole number within the levels, rounded half to even; not NaN.
__device__ __forceinline__ signed char nearest(double value) {
    return static_cast<signed char>(fmin(fmax(rint(value), 0.0), HIGHEST));
}

// Levels stay, missing becomes the value.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) fill_table(
    const double* __restrict__ value, long long cells, signed char* __restrict__ table)
{
    for (long long cell = first_cell(); cell < cells; cell += all_threads()) {
        const double filled = value[cell];
        signed char* to = table + cell * SLOTS;
        #pragma unroll
        for (int level = 0; level < LEVELS; level++) to[level] = static_cast<signed char>(level);
        to[LEVELS] = filled == filled ? nearest(filled) : static_cast<signed char>(-1);
    }
}

// Levels are limited, missing stays; fmin and fmax pass over a NaN bound.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) clip_table(
    const double* __restrict__ low, const double* __restrict__ high, long long cells, signed char* __restrict__ table)
{
    for (long long cell = first_cell(); cell < cells; cell += all_threads()) {
        const double least = fmax(low[cell], 0.0), most = fmin(high[cell], HIGHEST);
        signed char* to = table + cell * SLOTS;
        #pragma unroll
        for (int level = 0; level < LEVELS; level++)
            to[level] = nearest(fmin(fmax(static_cast<double>(level), least), most));
        to[LEVELS] = -1;
    }
}

// What `first` does and afterwards `then`.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) compose_tables(
    const signed char* __restrict__ first, const signed char* __restrict__ then, long long cells,
    signed char* __restrict__ table, unsigned char* __restrict__ bad)
{
    for (long long cell = first_cell(); cell < cells; cell += all_threads()) {
        const signed char *one = first + cell * SLOTS, *two = then + cell * SLOTS;
        bool wrong_here = false;
        #pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) {
            const int entry = one[slot];
            const bool right = entry >= -1 && entry < LEVELS;
            wrong_here |= !right;
            table[cell * SLOTS + slot] = two[right && entry >= 0 ? entry : LEVELS];
        }
        bad[cell] = wrong_here;
    }
}
