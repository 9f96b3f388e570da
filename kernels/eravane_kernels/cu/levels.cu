// Integer levels 0..4 with -1 for missing: counts per (era, column), and a table applied to them.
//
// Called by cuda/statistics.py (level_counts) and cuda/outliers.py (apply_table).
//
// Shapes: x int8 [C, N], columns `ld` bytes apart; begins, ends int64 [E]; counts uint32 [E, C, 6]; table int8
// [E, C, 6]; out int8 [C, N], columns `out_ld` bytes apart, each with the alignment of x's modulo 16 (the launcher
// allocates it so), so that one split serves both; bad uint8 [E, C], 1 where a run holds another value than -1..4 (its
// results are then void).
// Launch: THREADS threads a block, one warp a run, any grid. Exact: integers only, no atomics.
// Registers: at most 64, no spills, no shared memory.
#include "runs.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;
constexpr int SLOTS = 6;
constexpr int VECTORS_PER_FLUSH = 63;   // a byte counter holds 255; a vector adds up to 4
constexpr unsigned ONES = 0x01010101u;
constexpr unsigned HIGH_BITS = 0xf8f8f8f8u;

// Nonzero if one of four codes is not -1..4. Codes 5 and 6 have the third bit and differ in the other two; every other
// wrong code has upper bits that do not repeat `missing`, the bit that codes with 11 in the second and third place set.
__device__ __forceinline__ unsigned wrong(unsigned codes, unsigned missing) {
    return (((codes ^ codes >> 1) & codes >> 2) & ONES) | ((codes ^ missing * 0xf8u) & HIGH_BITS);
}

// Byte counters, four to a word, of the bits of the codes 000, 001, 010, 011, 100 and 111 (missing).
struct Planes {
    unsigned bit0, bit1, bit2, bits01, bits12;
};

// Adds four codes; nonzero if one is wrong.
__device__ __forceinline__ unsigned add(Planes& planes, unsigned codes) {
    const unsigned second = codes >> 1, third = codes >> 2, missing = second & third & ONES;
    planes.bit0 += codes & ONES;
    planes.bit1 += second & ONES;
    planes.bit2 += third & ONES;
    planes.bits01 += codes & second & ONES;
    planes.bits12 += missing;
    return wrong(codes, missing);
}

__device__ __forceinline__ void flush(const Planes& planes, unsigned* total) {
    total[0] = __dp4a(planes.bit0, ONES, total[0]);
    total[1] = __dp4a(planes.bit1, ONES, total[1]);
    total[2] = __dp4a(planes.bit2, ONES, total[2]);
    total[3] = __dp4a(planes.bits01, ONES, total[3]);
    total[4] = __dp4a(planes.bits12, ONES, total[4]);
}

// Bit counts of one run, summed over the warp, in `total`; nonzero if this lane met a wrong code.
__device__ __forceinline__ unsigned count_bits(const signed char* values, int rows, int lane, unsigned* total) {
    const Split part = split(values, rows);
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(values);
    Planes edge{};
    unsigned bad = 0;
    if (lane < part.head) bad |= add(edge, bytes[lane]);
    if (lane < part.tail) bad |= add(edge, bytes[rows - part.tail + lane]);
    flush(edge, total);
    const uint4* body = reinterpret_cast<const uint4*>(values + part.head);
    for (int begin = lane; begin < part.vectors; begin += VECTORS_PER_FLUSH * WARP) {
        const int end = min(part.vectors, begin + VECTORS_PER_FLUSH * WARP);
        Planes planes{};
        #pragma unroll 4
        for (int i = begin; i < end; i += WARP) {
            const uint4 codes = __ldg(body + i);
            bad |= add(planes, codes.x) | add(planes, codes.y) | add(planes, codes.z) | add(planes, codes.w);
        }
        flush(planes, total);
    }
    #pragma unroll
    for (int bit = 0; bit < 5; bit++) total[bit] = __reduce_add_sync(ALL_LANES, total[bit]);
    return bad;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) level_counts(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ begins,
    const long long* __restrict__ ends, long long eras, long long columns, unsigned* __restrict__ counts,
    unsigned char* __restrict__ bad)
{
    const Runs runs{begins, ends, eras, columns};
    const int lane = threadIdx.x % WARP;
    for (long long number = first_warp<THREADS>(); number < runs.count(); number += all_warps<THREADS>()) {
        const Run run = runs[number];
        unsigned total[5] = {};
        const unsigned wrong_here = count_bits(x + run.column * ld + run.begin, run.rows, lane, total);
        const int any_wrong = __any_sync(ALL_LANES, wrong_here != 0);
        if (lane) continue;
        const unsigned missing = total[4], fourth = total[2] - missing, third = total[3] - missing;
        const unsigned second = total[1] - total[3], first = total[0] - total[3];
        unsigned* out = counts + run.cell * SLOTS;
        out[0] = run.rows - first - second - third - fourth - missing;
        out[1] = first;
        out[2] = second;
        out[3] = third;
        out[4] = fourth;
        out[5] = missing;
        bad[run.cell] = any_wrong != 0;
    }
}

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
