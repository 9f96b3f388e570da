// Boosted trees of any depth evaluated on integer levels or floats: the leaf of every tree added to a row's output, tree
// after tree.
//
// Called by cuda/forest.py (add_trees). As cpu/forest.py and XGBoost on a CPU, to the bit: thresholds are compared as
// float32, a missing value (NaN) goes to the side that its split has for it.
//
// A block holds 32 rows. Each of its warps walks them down AT_ONCE trees side by side and leaves what it reaches in shared
// memory; after a barrier the first warp adds it in the order of the trees, while the others go on with the next ones.
//
// Bound: a step reads a node of 16 bytes and then a cell, both mostly from L2; a warp's rows lie side by side and share
// the upper nodes. Two dependent reads a step bind: 5,567 rows and 2,000 trees of depth 5 are 174 blocks, 63 rounds of 10
// reads of 250 cycles and 32 sums of about 20: 0.1 ms on 132 processors at 1.98 GHz.
//
// Shapes: x int8 or float32 [C, N], columns `ld` values apart; node int32 [K, 4] as spec/forest.py has them, nodes below
// a split after it, so that every walk ends; root int32 [T]; total float32 [N].
// Launch: THREADS threads a block, 32 rows a block, any grid. Exact: sums are rounded to float32 after every tree.
// Registers: at most 64, no spills, 8 KB of static shared memory.
#include "trees.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4, WARP = 32, AT_ONCE = 4, ROUND = THREADS / WARP * AT_ONCE;

template <class T> __device__ __forceinline__ void walk(
    const T* x, long long ld, long long rows, const uint4* node, const int* root, long long trees, float* total)
{
    __shared__ float reached[2][ROUND][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int half = 0;  // of `reached`: its last readers have passed a barrier since
    for (long long first = blockIdx.x * static_cast<long long>(WARP); first < rows;
         first += static_cast<long long>(gridDim.x) * WARP) {
        const bool inside = first + lane < rows;
        const long long row = inside ? first + lane : first;
        double sum = widen(total[row]);
        for (long long tree = 0; tree < trees; tree += ROUND, half ^= 1) {
            uint4 here[AT_ONCE];
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const long long mine = tree + warp * AT_ONCE + i;
                here[i] = mine < trees ? __ldg(node + __ldg(root + mine)) : make_uint4(LEAF, 0, 0, 0);
            }
            for (bool moved = true; moved;) {
                moved = false;
                #pragma unroll
                for (int i = 0; i < AT_ONCE; i++) {
                    if (here[i].x == LEAF) continue;
                    here[i] = __ldg(node + below(x, ld, row, here[i]));
                    moved = true;
                }
            }
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++) reached[half][warp * AT_ONCE + i][lane] = __uint_as_float(here[i].y);
            __syncthreads();
            if (warp == 0)
                for (int i = 0; i < ROUND && tree + i < trees; i++) sum = widen(narrow(sum + widen(reached[half][i][lane])));
        }
        if (warp == 0 && inside) total[row] = narrow(sum);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) add_trees_levels(
    const signed char* __restrict__ x, long long ld, long long rows, const int* __restrict__ node,
    const int* __restrict__ root, long long trees, float* __restrict__ total)
{
    walk(x, ld, rows, reinterpret_cast<const uint4*>(node), root, trees, total);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) add_trees_floats(
    const float* __restrict__ x, long long ld, long long rows, const int* __restrict__ node,
    const int* __restrict__ root, long long trees, float* __restrict__ total)
{
    walk(x, ld, rows, reinterpret_cast<const uint4*>(node), root, trees, total);
}
