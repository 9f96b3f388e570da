// Gradients and Hessians as integers, without the host: the largest ones, the powers of two, the totals of the roots.
//
// Called by cuda/growth.py (Grower), for B trees at once, tree blockIdx.y. Specification: spec/growth.py; the powers are
// those of growth.py (power_for).
//
// Shapes: margin, goal, hessian, gradient float32 [B, N]; largest uint32 [B, 2, parts], the largest bits of gradients and
// Hessians that a block has met; quanta uint32 [B, 1 or 2, N]: where Hessians are 0 or 1, 2 * gradient + Hessian, else
// gradients, then Hessians; rule double [B, RULES]; level int64 [B, nodes, FIELDS]; task int64 [B, nodes + 1]; state int64
// [B, 3]; counted uint64 [B, more, K, PLANES, 2]; bad int64 [B]: bit 0 where a gradient is infinite or NaN, bit 1 where
// a Hessian is or is negative. Such a tree has no rows.
// Launch: THREADS threads a block, `parts` blocks a tree. 16 bytes a row are read and 4 or 8 written: on an H100 0.03 ms
// for 2.7M rows. Sums of integers by atomics, so that their order cannot show.
// Registers: at most 64, no spills.
#include "floats.cuh"
#include "grownodes.cuh"
#include "reduce.cuh"

constexpr int BITS = 29;
constexpr unsigned NEVER = 0x7fffffffu;   // sorts beyond an infinity, as NaNs do

__device__ __forceinline__ unsigned size_of(float value) { return __float_as_uint(value) & ~SIGN_32; }

// The bits of a Hessian, NEVER of a negative one.
__device__ __forceinline__ unsigned hessian_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits > SIGN_32 ? NEVER : bits & ~SIGN_32;
}

__device__ __forceinline__ double difference(float value, float other) { return widen(value) - widen(other); }

// All rows in the roots, nothing counted; gradients of squared error unless they are given, times Hessians if `weighed`;
// the largest of both. A difference or product of float32 values, rounded to double and then to float32, is rounded once.
extern "C" __global__ void __launch_bounds__(THREADS) grow_measure(
    long long rows, long long given, long long weighed, const float* __restrict__ margin, const float* __restrict__ goal,
    const float* __restrict__ hessian, float* __restrict__ gradient, unsigned* __restrict__ largest,
    long long nodes, long long* __restrict__ level, long long* __restrict__ task, long long* __restrict__ state,
    long long cells, long long more, unsigned long long* __restrict__ counted)
{
    __shared__ unsigned partial[WARPS];
    const long long own = blockIdx.y, first = own * rows, step = static_cast<long long>(gridDim.x) * THREADS;
    const long long here = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x;
    if (here == 0) {
        long long* root = level + own * nodes * FIELDS;
        root[ID] = root[FIRST] = root[GRADIENT] = root[HESSIAN] = root[PARENT] = 0;
        root[ROWS] = rows;
        root[COUNTED] = 1;
        task[own * (nodes + 1)] = 0;
        task[own * (nodes + 1) + 1] = (rows + CHUNK - 1) / CHUNK;
        state[3 * own] = state[3 * own + 1] = 1;
        state[3 * own + 2] = 0;
    }
    for (long long i = here; i < cells; i += step) counted[own * more * cells + i] = 0;
    unsigned most_g = 0, most_h = 0;
    for (long long row = first + here; row < first + rows; row += step) {
        const float weight = weighed ? hessian[row] : 1.0f;
        float value;
        if (given) {
            value = gradient[row];
        } else {
            const bool finite = size_of(margin[row]) < INFINITY_32 && size_of(goal[row]) < INFINITY_32;
            value = finite ? narrow(difference(margin[row], goal[row])) : __uint_as_float(NEVER);
            if (weighed && size_of(value) < INFINITY_32 && hessian_of(weight) < INFINITY_32)
                value = narrow(widen(value) * widen(weight));
            gradient[row] = value;
        }
        most_g = max(most_g, size_of(value));
        most_h = max(most_h, hessian_of(weight));
    }
    most_g = reduce<THREADS>(most_g, Most{}, partial);
    most_h = reduce<THREADS>(most_h, Most{}, partial);
    if (threadIdx.x) return;
    largest[2 * own * gridDim.x + blockIdx.x] = most_g;
    largest[(2 * own + 1) * gridDim.x + blockIdx.x] = most_h;
}

// The power of two that makes integers of at most BITS bits of values up to that of these bits.
__device__ __forceinline__ int power_for(unsigned bits) {
    if (bits == 0) return 0;
    return BITS - (static_cast<int>(__double_as_longlong(widen(__uint_as_float(bits))) >> 52) - 1022);
}

__device__ __forceinline__ double two_to(int power) {
    return __longlong_as_double(static_cast<long long>(power + 1023) << 52);
}

__device__ __forceinline__ unsigned most_of(const unsigned* parts, long long count, unsigned* partial) {
    unsigned most = 0;
    for (long long i = threadIdx.x; i < count; i += THREADS) most = max(most, parts[i]);
    return reduce<THREADS>(most, Most{}, partial);
}

extern "C" __global__ void __launch_bounds__(THREADS) grow_quantise(
    long long rows, long long weighed, long long counting, const float* __restrict__ gradient,
    const float* __restrict__ hessian, const unsigned* __restrict__ largest, unsigned* __restrict__ quanta,
    double* __restrict__ rule, long long nodes, long long* __restrict__ level, long long* __restrict__ bad)
{
    __shared__ unsigned partial[WARPS];
    __shared__ long long sums[WARPS];
    const long long own = blockIdx.y, first = own * rows, parts = gridDim.x;
    const unsigned most_g = most_of(largest + 2 * own * parts, parts, partial);
    const unsigned most_h = most_of(largest + (2 * own + 1) * parts, parts, partial);
    const bool wrong_g = most_g >= INFINITY_32, wrong_h = most_h >= INFINITY_32;
    const int power_g = wrong_g ? 0 : power_for(most_g), power_h = counting || wrong_h ? 0 : power_for(most_h);
    const double scale_g = two_to(power_g), scale_h = two_to(power_h);
    unsigned* to = quanta + first * (counting ? 1 : 2);
    long long total_g = 0, total_h = 0;
    for (long long row = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; row < rows;
         row += parts * THREADS) {
        int g = 0, h = 0;
        if (!wrong_g && !wrong_h) {
            g = static_cast<int>(rint(widen(gradient[first + row]) * scale_g));
            h = weighed ? static_cast<int>(rint(widen(hessian[first + row]) * scale_h)) : 1;
        }
        to[row] = static_cast<unsigned>(counting ? 2 * g + h : g);
        if (!counting) to[rows + row] = static_cast<unsigned>(h);
        total_g += g;
        total_h += h;
    }
    total_g = reduce<THREADS>(total_g, Sum{}, sums);
    total_h = reduce<THREADS>(total_h, Sum{}, sums);
    if (threadIdx.x) return;
    unsigned long long* root = reinterpret_cast<unsigned long long*>(level + own * nodes * FIELDS);
    atomicAdd(root + GRADIENT, static_cast<unsigned long long>(total_g));
    atomicAdd(root + HESSIAN, static_cast<unsigned long long>(total_h));
    if (blockIdx.x) return;
    rule[own * RULES + UNIT_G] = two_to(-power_g);
    rule[own * RULES + UNIT_H] = two_to(-power_h);
    bad[own] = (wrong_g ? 1 : 0) + (wrong_h ? 2 : 0);
}
