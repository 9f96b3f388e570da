// Integer levels 0..4 with -1 for missing: counts and statistics per (era, column).
//
// Called by cuda/statistics.py: level_counts; level_statistics, which writes statistics in place of counts; and
// statistics_of_counts, for counts that pool several eras.
//
// A warp takes a stretch of a column: whole eras of up to 64 KB (or a longer era alone), brought to shared memory stage
// by stage while it counts. Vectors of 16 bytes are read as they are aligned, and masked where an era begins or ends;
// only the first and last bytes of a stretch, which no aligned vector holds, are read one by one. Neighbouring warps
// take the same eras of neighbouring columns, so that results of 8 bytes fill sectors in L2.
//
// Bound: a byte read a cell; 20 bytes a clock and processor are counted (four vectors a lane: 128 LOP3, 40 IADD3, 32
// SHF, two clocks a warp each), 4.7 TB/s on an H200, beside copies at 4.3 TB/s. 104 bytes written a run, 2 % of its own.
//
// Shapes: x int8 [C, N], columns `ld` bytes apart; offsets int64 [E + 1], rows of the eras; group int64 [G + 1], the
// first era of every stretch; counts uint32 [E, C, 6]; pooled int64 [E, C, 6]; bad uint8 [E, C], 1 where a run holds
// another value than -1..4 (its results are then void); statistics as in levelstats.cuh.
// Launch: THREADS threads a block, a warp a stretch, any grid. Exact: integers before the last division, no atomics.
// Registers: at most 80, no spills (64 where counts alone are written).
#include "codes.cuh"
#include "levelstats.cuh"
#include "stream.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP, BLOCKS_PER_SM = 4, BLOCKS_OF_STATISTICS = 3;
constexpr int VECTORS_PER_FLUSH = 63;   // a byte counter holds 255; a vector adds up to 4
constexpr int AT_ONCE = STAGE_VECTORS / WARP;

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

__device__ __forceinline__ unsigned add(Planes& planes, const uint4& codes) {
    return add(planes, codes.x) | add(planes, codes.y) | add(planes, codes.z) | add(planes, codes.w);
}

// Bits of the bytes from..to-1 of a word that begins at byte `at`.
__device__ __forceinline__ unsigned mask_of(int from, int to, int at) {
    const int low = min(max(from - at, 0), 4), high = min(max(to - at, low), 4);
    return static_cast<unsigned>((1ull << 8 * high) - (1ull << 8 * low));
}

__device__ __forceinline__ uint4 masked(const uint4& codes, int from, int to) {
    return make_uint4(codes.x & mask_of(from, to, 0), codes.y & mask_of(from, to, 4), codes.z & mask_of(from, to, 8),
                      codes.w & mask_of(from, to, 12));
}

// What a lane has counted of a run.
struct Counter {
    Planes planes{};
    unsigned total[5] = {}, bad = 0;
    int held = 0;   // vectors in the byte counters

    __device__ __forceinline__ void flush() {
        total[0] = __dp4a(planes.bit0, ONES, total[0]);
        total[1] = __dp4a(planes.bit1, ONES, total[1]);
        total[2] = __dp4a(planes.bit2, ONES, total[2]);
        total[3] = __dp4a(planes.bits01, ONES, total[3]);
        total[4] = __dp4a(planes.bits12, ONES, total[4]);
        planes = {};
        held = 0;
    }
    __device__ __forceinline__ void make_room(int vectors) {
        if (held + vectors > VECTORS_PER_FLUSH) flush();
        held += vectors;
    }
};

// A warp's stretch of a column, cut at 16-byte boundaries: rows are counted from its first.
struct Stretch {
    const unsigned char* bytes;
    int head, vectors, rows;
};

// Counts rows begin..end-1 of the stretch.
__device__ __forceinline__ void count_run(
    const Stretch& in, Stream& stream, int begin, int end, int lane, Counter& counter)
{
    const int body = in.head + in.vectors * VECTOR_BYTES;
    counter.make_room(2);
    if (begin + lane < min(end, in.head)) counter.bad |= add(counter.planes, in.bytes[begin + lane]);
    const int late = max(begin, body) + lane;
    if (late < end) counter.bad |= add(counter.planes, in.bytes[late]);
    const int first = max(begin - in.head, 0), last = min(end, body) - in.head;
    if (last <= first) return;
    int number = first / VECTOR_BYTES;
    const int whole = last / VECTOR_BYTES;
    if (first % VECTOR_BYTES || whole == number) {
        stream.reach(number);
        counter.make_room(1);
        const int from = first % VECTOR_BYTES, to = min(last - number * VECTOR_BYTES, VECTOR_BYTES);
        if (lane == 0) counter.bad |= add(counter.planes, masked(stream.vector(number), from, to));
        number++;
    }
    while (number < whole) {
        stream.reach(number);
        const int stop = min(whole, (number / STAGE_VECTORS + 1) * STAGE_VECTORS);
        counter.make_room(AT_ONCE);
        if (stop - number == STAGE_VECTORS) {
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                counter.bad |= add(counter.planes, stream.vector(number + i * WARP + lane));
        } else {
            for (int i = number + ((lane - number) & (WARP - 1)); i < stop; i += WARP)
                counter.bad |= add(counter.planes, stream.vector(i));
        }
        number = stop;
    }
    if (last % VECTOR_BYTES && number == whole) {
        stream.reach(whole);
        counter.make_room(1);
        if (lane == 0) counter.bad |= add(counter.planes, masked(stream.vector(whole), 0, last % VECTOR_BYTES));
    }
}

// Every run of every stretch of this warp: `finish` gets its number of rows, cell, bit counts and whether it is bad.
template <class Finish> __device__ __forceinline__ void count_stretches(
    const signed char* x, long long ld, const long long* offsets, const long long* group, long long groups,
    long long columns, Finish finish)
{
    __shared__ Stages stages[WARPS];
    const int lane = threadIdx.x % WARP;
    Stream stream(stages[threadIdx.x / WARP], lane);
    for (long long number = first_warp<THREADS>(); number < groups * columns; number += all_warps<THREADS>()) {
        const long long which = number / columns, column = number - which * columns;
        const long long first = group[which], last = group[which + 1], start = offsets[first];
        const signed char* values = x + column * ld + start;
        const int rows = static_cast<int>(offsets[last] - start);
        const Split part = split(values, rows);
        const Stretch in{reinterpret_cast<const unsigned char*>(values), part.head, part.vectors, rows};
        stream.open(reinterpret_cast<const uint4*>(values + part.head), part.vectors);
        int begin = 0;
        for (long long era = first; era < last; era++) {
            const int end = static_cast<int>(__ldg(offsets + era + 1) - start);
            Counter counter;
            count_run(in, stream, begin, end, lane, counter);
            counter.flush();
            #pragma unroll
            for (int bit = 0; bit < 5; bit++) counter.total[bit] = __reduce_add_sync(ALL_LANES, counter.total[bit]);
            finish(end - begin, era * columns + column, counter.total, __any_sync(ALL_LANES, counter.bad != 0), lane);
            begin = end;
        }
    }
}

// Rows by level 0..4 and missing, from how many codes have a bit.
template <class T> __device__ __forceinline__ void by_level(const unsigned* bits, int rows, T* counts) {
    const unsigned missing = bits[4], fourth = bits[2] - missing, third = bits[3] - missing;
    const unsigned second = bits[1] - bits[3], first = bits[0] - bits[3];
    counts[0] = rows - first - second - third - fourth - missing;
    counts[1] = first;
    counts[2] = second;
    counts[3] = third;
    counts[4] = fourth;
    counts[5] = missing;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) level_counts(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ offsets,
    const long long* __restrict__ group, long long groups, long long columns, unsigned* __restrict__ counts,
    unsigned char* __restrict__ bad)
{
    count_stretches(x, ld, offsets, group, groups, columns,
        [=](int rows, long long cell, const unsigned* bits, int any_wrong, int lane) {
            if (lane) return;
            by_level(bits, rows, counts + cell * SLOTS);
            bad[cell] = any_wrong != 0;
        });
}

// Lane q computes quantile q, the last lane everything else.
__device__ __forceinline__ void describe_by_lanes(
    const long long* counts, const Statistics& to, long long cell, int lane, int lanes)
{
    long long rows = 0;
    #pragma unroll
    for (int level = 0; level < LEVELS; level++) rows += counts[level];
    for (long long q = lane; q < to.number; q += lanes)
        to.quantiles[q * to.cells + cell] = quantile_of(counts, rows, to.wanted[q]);
    if (lane == lanes - 1) describe(counts, to, cell);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_OF_STATISTICS) level_statistics(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ offsets,
    const long long* __restrict__ group, long long groups, long long columns, long long cells,
    const double* __restrict__ wanted, long long quantiles, long long* __restrict__ count,
    long long* __restrict__ missing, double* __restrict__ mean, double* __restrict__ deviation,
    double* __restrict__ least, double* __restrict__ most, double* __restrict__ mode, double* __restrict__ quantile,
    unsigned char* __restrict__ bad)
{
    const Statistics to{count, missing, mean, deviation, least, most, mode, quantile, wanted, quantiles, cells};
    count_stretches(x, ld, offsets, group, groups, columns,
        [=](int rows, long long cell, const unsigned* bits, int any_wrong, int lane) {
            long long counts[SLOTS];
            by_level(bits, rows, counts);
            describe_by_lanes(counts, to, cell, lane, WARP);
            if (lane == 0) bad[cell] = any_wrong != 0;
        });
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) statistics_of_counts(
    const long long* __restrict__ pooled, long long cells, const double* __restrict__ wanted, long long quantiles,
    long long* __restrict__ count, long long* __restrict__ missing, double* __restrict__ mean,
    double* __restrict__ deviation, double* __restrict__ least, double* __restrict__ most, double* __restrict__ mode,
    double* __restrict__ quantile)
{
    const Statistics to{count, missing, mean, deviation, least, most, mode, quantile, wanted, quantiles, cells};
    for (long long cell = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; cell < cells;
         cell += static_cast<long long>(gridDim.x) * THREADS)
        describe_by_lanes(pooled + cell * SLOTS, to, cell, 0, 1);
}
