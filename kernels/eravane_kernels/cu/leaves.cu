// Leaves of boosted trees re-estimated on new rows, tree after tree, for several models at once.
//
// Called by cuda/leaves.py (renew_leaves). As spec/leaves.py, to the bit: the sums of a leaf run over its rows in their
// order, in double.
//
// list_rows: which leaf a row reaches depends on no margin, so that all trees are walked at once; a block walks a tile of
// rows down a tree and sorts them by leaf, keeping their order. renew_leaves: a block a model, tree after tree; in each
// tile the thread at the first row of a leaf adds up that leaf's rows.
//
// Bound: list_rows as forest.cu, and a sort of 1,024 keys in shared memory. renew_leaves waits for its own sums: 12 cycles
// a row of a tile's largest leaf and two trips to the L2 a tile, 4,500 cycles where that is a quarter of the rows. 28,000
// rows and 2,000 trees take 0.13 s at 1.98 GHz, however many models there are, up to one a processor.
//
// Shapes: x int8 or float32 [C, N], columns `ld` values apart; node int32 [K, 4] as spec/forest.py has them; tree int32
// [T, 2], its first node and the one behind its last; listed uint64 [T, N], node and row of every row, sorted by tiles;
// first int64 [B + 1], the trees of each model; label float32 [B, N], NaN where a row is not counted; weight float32 [N];
// margin double [B, N]; old double [K], number float32 [K], of nodes; sum double [B, 2 * size], zero before and after,
// where a tree has at most `size` nodes.
// Launch: THREADS threads a block, any grid. Exact: see above; leaves are rounded to float32.
// Registers: at most 64, no spills, 20 KB of static shared memory.
#include "sort.cuh"
#include "trees.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4, EACH = 4, TILE = THREADS * EACH;
constexpr unsigned long long NO_ROW = 0xffffffffffffffffull;

template <class T> __device__ __forceinline__ void list_tiles(
    const T* x, long long ld, long long rows, const uint4* node, const int* tree, long long trees,
    unsigned long long* listed)
{
    __shared__ unsigned long long keys[TILE + TILE / 32];
    const long long tiles = (rows + TILE - 1) / TILE;
    for (long long at = blockIdx.x; at < tiles * trees; at += gridDim.x) {
        const long long first = at % tiles * TILE, own = at / tiles;
        const unsigned root = __ldg(tree + 2 * own);
        unsigned long long key[EACH];
        uint4 here[EACH];
        #pragma unroll
        for (int i = 0; i < EACH; i++) {
            const long long row = first + i * THREADS + threadIdx.x;
            key[i] = row < rows ? static_cast<unsigned long long>(root) << 32 | row : NO_ROW;
            here[i] = row < rows ? __ldg(node + root) : make_uint4(LEAF, 0, 0, 0);
        }
        for (bool moved = true; moved;) {
            moved = false;
            #pragma unroll
            for (int i = 0; i < EACH; i++) {
                if (here[i].x == LEAF) continue;
                const unsigned row = static_cast<unsigned>(key[i]), next = below(x, ld, row, here[i]);
                key[i] = static_cast<unsigned long long>(next) << 32 | row;
                here[i] = __ldg(node + next);
                moved = true;
            }
        }
        #pragma unroll
        for (int i = 0; i < EACH; i++) keys[place(i * THREADS + threadIdx.x)] = key[i];
        __syncthreads();
        sort<THREADS>(keys, TILE);
        #pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int slot = i * THREADS + threadIdx.x;
            if (first + slot < rows) listed[own * rows + first + slot] = keys[place(slot)];
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) list_rows_levels(
    const signed char* __restrict__ x, long long ld, long long rows, const int* __restrict__ node,
    const int* __restrict__ tree, long long trees, unsigned long long* __restrict__ listed)
{
    list_tiles(x, ld, rows, reinterpret_cast<const uint4*>(node), tree, trees, listed);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) list_rows_floats(
    const float* __restrict__ x, long long ld, long long rows, const int* __restrict__ node,
    const int* __restrict__ tree, long long trees, unsigned long long* __restrict__ listed)
{
    list_tiles(x, ld, rows, reinterpret_cast<const uint4*>(node), tree, trees, listed);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) renew_leaves(
    const unsigned long long* __restrict__ listed, long long rows, const double* __restrict__ old,
    const int* __restrict__ tree, const long long* __restrict__ first, long long models,
    const float* __restrict__ label, const float* __restrict__ weight, double rate, double ridge, double keep,
    double* __restrict__ margin, float* __restrict__ number, double* __restrict__ sum, long long size)
{
    __shared__ unsigned leaf[TILE];
    __shared__ double gradient[TILE], mass[TILE];
    for (long long model = blockIdx.x; model < models; model += gridDim.x) {
        double *margin_N = margin + model * rows, *sum_L = sum + model * 2 * size;
        const float* label_N = label + model * rows;
        for (long long own = first[model]; own < first[model + 1]; own++) {
            const unsigned long long* listed_N = listed + own * rows;
            const int root = tree[2 * own], end = tree[2 * own + 1];
            for (long long begin = 0; begin < rows; begin += TILE) {
                const int count = rows - begin < TILE ? rows - begin : TILE;
                for (int slot = threadIdx.x; slot < count; slot += THREADS) {
                    const unsigned long long key = listed_N[begin + slot];
                    const unsigned row = static_cast<unsigned>(key);
                    const bool counted = !is_nan(label_N[row]);
                    leaf[slot] = key >> 32;
                    mass[slot] = counted ? widen(weight[row]) : 0.0;
                    gradient[slot] = counted ? mass[slot] * (margin_N[row] - widen(label_N[row])) : 0.0;
                }
                __syncthreads();
                for (int slot = threadIdx.x; slot < count; slot += THREADS) {
                    if (slot && leaf[slot - 1] == leaf[slot]) continue;
                    double* own_sum = sum_L + 2 * static_cast<long long>(leaf[slot] - root);
                    double gradients = own_sum[0], masses = own_sum[1];
                    for (int next = slot; next < count && leaf[next] == leaf[slot]; next++) {
                        gradients += gradient[next];
                        masses += mass[next];
                    }
                    own_sum[0] = gradients;
                    own_sum[1] = masses;
                }
                __syncthreads();
            }
            for (int at = root + threadIdx.x; at < end; at += THREADS) {
                double* own_sum = sum_L + 2 * static_cast<long long>(at - root);
                const double gradients = own_sum[0], masses = own_sum[1];
                const double best = -rate * gradients / (masses + ridge);
                number[at] = narrow(masses > 0.0 ? keep * old[at] + (1.0 - keep) * best : old[at]);
                own_sum[0] = own_sum[1] = 0.0;
            }
            __syncthreads();
            for (long long at = threadIdx.x; at < rows; at += THREADS) {
                const unsigned long long key = listed_N[at];
                margin_N[static_cast<unsigned>(key)] += widen(number[key >> 32]);
            }
            __syncthreads();
        }
    }
}
