// Columns of a file written into a matrix columns x rows in another order of rows, every value checked on the way.
//
// Called by cuda/placing.py (place_columns) on what a parquet reader has decoded. As spec/placing.py, to the bit.
//
// Bound: a cell is read and written once (2 bytes of int8), the order of rows once for COLUMNS_AT_ONCE columns and the
// bits of missing values where there are any; decoding parquet takes many times as long.
//
// Shapes: columns, valid: addresses [C], of the N values of each column (int8, float32 or float64), and of the bits of
// rows that have a value, lowest first, 0 where all have one; to int32 [N], the row of `out` that a row becomes, -1 for
// none; out int8 or float32 [C, R], columns `ld` values apart; fault uint32 [C], zeros at first: BEYOND where a level lies
// outside 0..4, REFUSED where a level is missing or a number infinite, as float32, too; rows that go nowhere count.
// Launch: THREADS threads a block, any grid of x, a y for COLUMNS_AT_ONCE columns. Exact; NaN keeps the bits that a CPU's
// conversion gives it. Registers: at most 40, no spills, no shared memory.
#include "floats.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 6, COLUMNS_AT_ONCE = 16, HIGHEST = 4;
constexpr unsigned BEYOND = 1, REFUSED = 2;
constexpr unsigned QUIET_32 = 0x00400000u, FRACTION_32 = 0x007fffffu, MISSING_32 = INFINITY_32 | QUIET_32;

__device__ __forceinline__ signed char stored(signed char level, bool held, unsigned& fault) {
    if (!held) fault |= REFUSED;
    else if (static_cast<unsigned char>(level) > HIGHEST) fault |= BEYOND;
    return level;
}

__device__ __forceinline__ float stored(float value, bool held, unsigned& fault) {
    if (!held) return __uint_as_float(MISSING_32);
    if ((__float_as_uint(value) & ~SIGN_32) == INFINITY_32) fault |= REFUSED;
    return value;
}

__device__ __forceinline__ float stored(double value, bool held, unsigned& fault) {
    if (!held || !is_nan(value)) return stored(held ? narrow(value) : 0.0f, held, fault);
    const unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(value));
    const unsigned sign = static_cast<unsigned>(bits >> 32) & SIGN_32;
    return __uint_as_float(sign | MISSING_32 | (static_cast<unsigned>(bits >> 29) & FRACTION_32));
}

template <class T, class U>
__device__ __forceinline__ void place_all(
    const unsigned long long* columns, const unsigned long long* valid, long long count, const int* to, long long rows,
    U* out, long long ld, unsigned* fault)
{
    const long long first = static_cast<long long>(blockIdx.y) * COLUMNS_AT_ONCE;
    const long long last = min(first + COLUMNS_AT_ONCE, count);
    for (long long row = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; row < rows;
         row += static_cast<long long>(gridDim.x) * THREADS) {
        const int target = __ldg(to + row);
        for (long long column = first; column < last; column++) {
            const T* values = reinterpret_cast<const T*>(__ldg(columns + column));
            const unsigned char* bits = reinterpret_cast<const unsigned char*>(__ldg(valid + column));
            unsigned wrong = 0;
            const U value = stored(__ldg(values + row), !bits || __ldg(bits + (row >> 3)) >> (row & 7) & 1, wrong);
            if (target >= 0) out[column * ld + target] = value;
            if (wrong) atomicOr(fault + column, wrong);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) place_levels(
    const unsigned long long* __restrict__ columns, const unsigned long long* __restrict__ valid, long long count,
    const int* __restrict__ to, long long rows, signed char* __restrict__ out, long long ld,
    unsigned* __restrict__ fault)
{
    place_all<signed char>(columns, valid, count, to, rows, out, ld, fault);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) place_floats(
    const unsigned long long* __restrict__ columns, const unsigned long long* __restrict__ valid, long long count,
    const int* __restrict__ to, long long rows, float* __restrict__ out, long long ld, unsigned* __restrict__ fault)
{
    place_all<float>(columns, valid, count, to, rows, out, ld, fault);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) place_doubles(
    const unsigned long long* __restrict__ columns, const unsigned long long* __restrict__ valid, long long count,
    const int* __restrict__ to, long long rows, float* __restrict__ out, long long ld, unsigned* __restrict__ fault)
{
    place_all<double>(columns, valid, count, to, rows, out, ld, fault);
}
