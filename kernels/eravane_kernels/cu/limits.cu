// Float columns limited to bounds, or their missing cells filled, with one value per (era, column).
//
// Called by cuda/outliers.py (clip) and cuda/missing.py (fill).
//
// Shapes: x and out float32 [C, N], columns `ld` and `out_ld` values apart, columns of `out` with the alignment of
// x's modulo 16 (the launcher allocates it so), so that one split serves both; begins, ends int64 [E]; low, high,
// fill float64 [E, C], rounded to float32, NaN limits or fills nothing; bad uint8 [E, C], 1 where a run holds an
// infinity. Launch: THREADS threads a block, one warp a run, any grid. Exact: comparisons and copies only.
// Registers: at most 64, no spills, no shared memory.
#include "floats.cuh"
#include "runs.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;

// Bounds as keys; a NaN bound becomes one that no number is beyond.
struct Clip {
    unsigned low_key, high_key;
    float low, high;
    unsigned bad;
    __device__ __forceinline__ Clip(double least, double most) : low(narrow(least)), high(narrow(most)), bad(0) {
        low_key = is_nan(low) ? 0 : Keys<float>::of(low);
        high_key = is_nan(high) ? Keys<float>::NONE : Keys<float>::of(high);
    }
    __device__ __forceinline__ float operator()(float value) {
        bad |= (__float_as_uint(value) & ~SIGN_32) == INFINITY_32;
        const unsigned key = Keys<float>::of(value);
        if (is_nan(value)) return value;
        return key < low_key ? low : key > high_key ? high : value;
    }
};

struct Fill {
    float fill;
    __device__ __forceinline__ float operator()(float value) const { return is_nan(value) ? fill : value; }
};

template <class Change>
__device__ __forceinline__ void change_run(const float* from, float* to, int rows, int lane, Change& change) {
    const Split part = split(from, rows);
    const int tail = rows - part.tail + lane;
    if (lane < part.head) to[lane] = change(from[lane]);
    if (lane < part.tail) to[tail] = change(from[tail]);
    const float4* source = reinterpret_cast<const float4*>(from + part.head);
    float4* target = reinterpret_cast<float4*>(to + part.head);
    #pragma unroll 4
    for (int i = lane; i < part.vectors; i += WARP) {
        const float4 value = __ldg(source + i);
        target[i] = make_float4(change(value.x), change(value.y), change(value.z), change(value.w));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) clip_values(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, const double* __restrict__ low, const double* __restrict__ high,
    float* __restrict__ out, long long out_ld, unsigned char* __restrict__ bad)
{
    const Runs runs{begins, ends, eras, columns};
    const int lane = threadIdx.x % WARP;
    for (long long number = first_warp<THREADS>(); number < runs.count(); number += all_warps<THREADS>()) {
        const Run run = runs[number];
        Clip clip(low[run.cell], high[run.cell]);
        change_run(x + run.column * ld + run.begin, out + run.column * out_ld + run.begin, run.rows, lane, clip);
        const int infinite = __any_sync(ALL_LANES, clip.bad != 0);
        if (lane == 0) bad[run.cell] = infinite != 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) fill_values(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, const double* __restrict__ fill, float* __restrict__ out, long long out_ld)
{
    const Runs runs{begins, ends, eras, columns};
    const int lane = threadIdx.x % WARP;
    for (long long number = first_warp<THREADS>(); number < runs.count(); number += all_warps<THREADS>()) {
        const Run run = runs[number];
        Fill filled{narrow(fill[run.cell])};
        change_run(x + run.column * ld + run.begin, out + run.column * out_ld + run.begin, run.rows, lane, filled);
    }
}
