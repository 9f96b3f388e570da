// Gradients and Hessians as integers, without the host: the largest ones, the powers of two, the totals of the roots.
//
// Called by cuda/growth.py (Grower), for B trees at once, tree blockIdx.y. Specification: spec/growth.py; the powers
// are those of growth.py (power_for).
//
// Gradients are given, or those of squared error: output less goal, times the weight, of rows that are drawn, weigh
// something and whose goal is known; others are absent, and get NaN. Draws are those of spec/draws.py, of stream turn[0].
//
// Shapes: margin, goal, gradient float32 [B, N]; hessian float32, `each` from one tree's to the next's (0 where all
// have the same), read if `weighed`; largest uint32 [B, 2, parts], the largest bits of gradients and Hessians that a
// block has met; quanta uint32 [B, 1 or 2, N]: if `counting`, where Hessians are 0 or 1, 2 * gradient + Hessian, else
// gradients, then Hessians; rule double [B, RULES]; level int64 [B, nodes, FIELDS]; task int64 [B, nodes + 1]; state
// int64 [B, 3]; counted uint64 [B, most_counted, K, PLANES, 2]; streams uint64 [rounds]; bad int64 [rounds, most], in
// row turn[0]: bit 0 where a gradient is infinite or NaN, bit 1 where a Hessian is or is negative. Such a tree has no
// rows.
// Launch: THREADS threads a block, `parts` blocks a tree. 16 bytes a row are read and 8 written: on an H100 0.03 ms for
// 2.7M rows. Sums of integers by atomics, so that their order cannot show.
// Registers: at most 64, no spills.
#include "floats.cuh"
#include "grownodes.cuh"
#include "reduce.cuh"

constexpr int BITS = 29, MOST_POWER = 126;                 // as in growth.py
constexpr unsigned NEVER = 0x7fffffffu;                    // a NaN; sorts beyond an infinity
constexpr unsigned long long WHOLE = 1 << 24;              // a share of rows is rounded to so many parts

__device__ __forceinline__ unsigned size_of(float value) { return __float_as_uint(value) & ~SIGN_32; }

// The bits of a Hessian, NEVER of a negative one.
__device__ __forceinline__ unsigned hessian_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits > SIGN_32 ? NEVER : bits & ~SIGN_32;
}

// Whether a row is drawn: a word of SplitMix64, at the row's place of the round's stream.
__device__ __forceinline__ bool drawn(unsigned long long stream, long long row, unsigned long long share) {
    unsigned long long word = stream + 0x9e3779b97f4a7c15ull * static_cast<unsigned long long>(row + 1);
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ word >> 27) * 0x94d049bb133111ebull;
    return (word ^ word >> 31) >> 40 < share;
}

// The gradient of squared error. A difference or product of float32 values, rounded to double and then to float32, is
// rounded once; what is not finite stays so.
__device__ __forceinline__ float error_of(float margin, float goal, float weight) {
    if (size_of(goal) > INFINITY_32 || size_of(weight) == 0) return __uint_as_float(NEVER);
    if (size_of(margin) >= INFINITY_32 || size_of(goal) == INFINITY_32) return __uint_as_float(INFINITY_32);
    const float value = narrow(widen(margin) - widen(goal));
    return size_of(value) < INFINITY_32 && size_of(weight) < INFINITY_32 ? narrow(widen(value) * widen(weight)) : value;
}

// All rows in the roots, nothing counted; gradients, unless they are given, and the largest of them and of Hessians.
extern "C" __global__ void __launch_bounds__(THREADS) grow_measure(
    long long rows, long long given, const float* __restrict__ margin, const float* __restrict__ goal,
    long long weighed, const float* __restrict__ hessian, long long each, const long long* __restrict__ turn,
    const unsigned long long* __restrict__ streams, unsigned long long share, float* __restrict__ gradient,
    unsigned* __restrict__ largest, long long nodes,
    long long* __restrict__ level, long long* __restrict__ task, long long* __restrict__ state, long long cells,
    unsigned long long* __restrict__ counted)
{
    __shared__ unsigned partial[WARPS];
    margin = of_tree(margin, rows);
    goal = of_tree(goal, rows);
    hessian = of_tree(hessian, each);
    gradient = of_tree(gradient, rows);
    largest = of_tree(largest, 2LL * gridDim.x);
    counted = of_tree(counted, most_counted(nodes) * cells);
    const unsigned long long stream = streams[turn[0]];
    const long long here = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x;
    const long long step = static_cast<long long>(gridDim.x) * THREADS;
    if (here == 0) {
        long long* root = of_tree(level, nodes * FIELDS);
        root[ID] = root[FIRST] = root[GRADIENT] = root[HESSIAN] = root[PARENT] = 0;
        root[ROWS] = rows;
        root[COUNTED] = 1;
        of_tree(task, nodes + 1)[0] = 0;
        of_tree(task, nodes + 1)[1] = (rows + CHUNK - 1) / CHUNK;
        of_tree(state, 3)[0] = of_tree(state, 3)[1] = 1;
        of_tree(state, 3)[2] = 0;
    }
    for (long long i = here; i < cells; i += step) counted[i] = 0;
    unsigned most_g = 0, most_h = 0;
    for (long long row = here; row < rows; row += step) {
        const float weight = weighed ? hessian[row] : 1.0f;
        float value = __uint_as_float(NEVER);
        if (given) {
            value = gradient[row];
        } else {
            if (share == WHOLE || drawn(stream, row, share)) value = error_of(margin[row], goal[row], weight);
            gradient[row] = value;
            if (size_of(value) > INFINITY_32) continue;
        }
        most_g = max(most_g, size_of(value));
        most_h = max(most_h, hessian_of(weight));
    }
    most_g = reduce<THREADS>(most_g, Most{}, partial);
    most_h = reduce<THREADS>(most_h, Most{}, partial);
    if (threadIdx.x) return;
    largest[blockIdx.x] = most_g;
    largest[gridDim.x + blockIdx.x] = most_h;
}

// The power of two that makes integers of at most BITS bits of values up to that of these bits.
__device__ __forceinline__ int power_for(unsigned bits) {
    if (bits == 0) return 0;
    const int exponent = static_cast<int>(__double_as_longlong(widen(__uint_as_float(bits))) >> 52) - 1022;
    return min(BITS - exponent, MOST_POWER);
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
    long long rows, const float* __restrict__ gradient, long long weighed, const float* __restrict__ hessian,
    long long each, long long counting, const unsigned* __restrict__ largest, unsigned* __restrict__ quanta,
    double* __restrict__ rule, long long nodes, long long* __restrict__ level, const long long* __restrict__ turn,
    long long most, long long* __restrict__ bad)
{
    __shared__ unsigned partial[WARPS];
    __shared__ long long sums[WARPS];
    const long long parts = gridDim.x;
    gradient = of_tree(gradient, rows);
    hessian = of_tree(hessian, each);
    largest = of_tree(largest, 2 * parts);
    quanta = of_tree(quanta, rows * (counting ? 1 : 2));
    const unsigned most_g = most_of(largest, parts, partial), most_h = most_of(largest + parts, parts, partial);
    const bool wrong_g = most_g >= INFINITY_32, wrong_h = most_h >= INFINITY_32;
    const int power_g = wrong_g ? 0 : power_for(most_g), power_h = counting || wrong_h ? 0 : power_for(most_h);
    const double scale_g = two_to(power_g), scale_h = two_to(power_h);
    long long total_g = 0, total_h = 0;
    for (long long row = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; row < rows;
         row += parts * THREADS) {
        int g = 0, h = 0;
        if (!wrong_g && !wrong_h && size_of(gradient[row]) < INFINITY_32) {
            g = static_cast<int>(rint(widen(gradient[row]) * scale_g));
            h = weighed ? static_cast<int>(rint(widen(hessian[row]) * scale_h)) : 1;
        }
        quanta[row] = static_cast<unsigned>(counting ? 2 * g + h : g);
        if (!counting) quanta[rows + row] = static_cast<unsigned>(h);
        total_g += g;
        total_h += h;
    }
    total_g = reduce<THREADS>(total_g, Sum{}, sums);
    total_h = reduce<THREADS>(total_h, Sum{}, sums);
    if (threadIdx.x) return;
    unsigned long long* root = reinterpret_cast<unsigned long long*>(of_tree(level, nodes * FIELDS));
    atomicAdd(root + GRADIENT, static_cast<unsigned long long>(total_g));
    atomicAdd(root + HESSIAN, static_cast<unsigned long long>(total_h));
    if (blockIdx.x) return;
    of_tree(rule, RULES)[UNIT_G] = two_to(-power_g);
    of_tree(rule, RULES)[UNIT_H] = two_to(-power_h);
    bad[turn[0] * most + blockIdx.y] = (wrong_g ? 1 : 0) + (wrong_h ? 2 : 0);
}
