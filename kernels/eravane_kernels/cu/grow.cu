// A depth-wise tree on integer levels 0..4 with -1 for missing, a level of it in five launches, without the host.
//
// Called by cuda/growth.py (Grower). Specification: spec/growth.py, to the bit.
//
// Bound (H100), per row of a counted node and column: a byte, and for four rows about 14 instructions for planes and
// masks and 5 __dp4a per plane and byte of gradient: 8 a cell. For 2.7M rows, 238 columns and 2.3 passes, 1.5e9 cells:
// 0.3 ms of bytes and 0.4 ms of instructions, and 2 to 3 ms where rows of a node are gathered 2 to a 32-byte sector.
//
// Shapes: x int8 [C, N], columns `ld` bytes apart; column int64 [K], those of the tree; order uint32 [N], rows by node;
// gradient int32 [N], hessian int32 [N] (0..2^29); level int64 [nodes, FIELDS], the nodes of a level of the tree, the
// children of split s at 2s and 2s+1; counted uint64 [splits, K, PLANES, 2], sums of gradients and Hessians over rows
// with bit 0, bit 1, bit 2, bits 0 and 1, bits 1 and 2 of the code; sums int64 [nodes, K, SLOTS, 2]; tree int64
// [tree nodes, 4]: parent, first child, column, 2 * (highest level on the left) + missing to the left; fact double
// [tree nodes, 3]: gain, Hessian, weight; state int64 [3]: splits of the level, its nodes, nodes of the tree;
// task int64 [splits + 1]: where the chunks of a split's rows, or of its smaller child's, begin among all chunks.
// Launch: THREADS threads a block. Sums of integers by atomics, so that their order cannot show; float32 as double.
// Registers: at most 104, no spills.
#include "floats.cuh"
#include "growsums.cuh"
#include "reduce.cuh"

constexpr int LEVELS = 5, SLOTS = 6, BLOCKS_PER_SM = 2;
constexpr int GAIN = 0, PLACE = 1, HIGHEST = 2, LEFT_GRADIENT = 3, LEFT_HESSIAN = 4;
constexpr int ALPHA = 0, LAMBDA = 1, GAMMA = 2, LEAST_CHILD = 3, ETA = 4, LEARNED = 5;
constexpr int UNIT_G = 6, UNIT_H = 7, MISSING = 8;
constexpr double LEAST_GAIN = 9.999999974752427e-07;   // float32 1e-6
constexpr double INFINITE_32 = 0x1p128;                // what `rounded` makes of more than float32 holds
constexpr long long LEAF = -1;

__device__ __forceinline__ double rounded(double value) { return widen(narrow(value)); }

// Hessians are 0 or 1.
extern "C" __global__ void __launch_bounds__(THREADS) grow_count_rows(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ column, long long columns,
    const unsigned* __restrict__ order, const int* __restrict__ gradient, const int* __restrict__ hessian,
    const long long* __restrict__ level, const long long* __restrict__ task, const long long* __restrict__ state,
    long long root, unsigned long long* __restrict__ counted)
{
    count<1>(x, ld, column, columns, order, gradient, hessian, level, task, state, root, counted);
}

extern "C" __global__ void __launch_bounds__(THREADS) grow_count_weights(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ column, long long columns,
    const unsigned* __restrict__ order, const int* __restrict__ gradient, const int* __restrict__ hessian,
    const long long* __restrict__ level, const long long* __restrict__ task, const long long* __restrict__ state,
    long long root, unsigned long long* __restrict__ counted)
{
    count<4>(x, ld, column, columns, order, gradient, hessian, level, task, state, root, counted);
}

__device__ __forceinline__ double shrunk(double gradient, const double* rule) {
    if (gradient > rule[ALPHA]) return gradient - rule[ALPHA];
    if (gradient < -rule[ALPHA]) return gradient + rule[ALPHA];
    return 0.0;
}

__device__ __forceinline__ double weight(double gradient, double hessian, const double* rule) {
    if (hessian < rule[LEAST_CHILD] || hessian <= 0.0) return 0.0;
    return rounded(-shrunk(gradient, rule) / (hessian + rule[LAMBDA]));
}

// In float32, as a double. A quotient of float32 values, rounded to double and then to float32, is rounded once.
__device__ __forceinline__ double worth(double gradient, double hessian, const double* rule) {
    if (hessian <= 0.0) return 0.0;
    const double pull = shrunk(gradient, rule);
    return rounded(rounded(pull * pull) / rounded(hessian + rule[LAMBDA]));
}

struct Best {
    double gain;
    long long highest, gradient, hessian;
};

__device__ __forceinline__ void attempt(
    long long left_g, long long left_h, const long long* node, const double* rule, double own, long long highest,
    Best& best)
{
    const double left = left_h * rule[UNIT_H], right = (node[HESSIAN] - left_h) * rule[UNIT_H];
    if (left < rule[LEAST_CHILD] || right < rule[LEAST_CHILD]) return;
    const double both = rounded(
        worth(left_g * rule[UNIT_G], left, rule) + worth((node[GRADIENT] - left_g) * rule[UNIT_G], right, rule));
    const double gain = rounded(both - own);
    if (gain > best.gain && gain < INFINITE_32) best = {gain, highest, left_g, left_h};
}

// The sums of one column over a node's rows by code, missing first: from its own planes, or what the other child leaves
// of the parent's.
__device__ __forceinline__ void complete(
    const unsigned long long* planes, const long long* counted_total, const long long* above, long long* slots)
{
    #pragma unroll
    for (int part = 0; part < 2; part++) {
        const unsigned long long one = planes[part], two = planes[2 + part], four = planes[4 + part];
        const unsigned long long both = planes[6 + part], missing = planes[8 + part];
        unsigned long long of[SLOTS] = {missing, 0, one - both, two - both, both - missing, four - missing};
        of[1] = static_cast<unsigned long long>(counted_total[part]) - missing - of[2] - of[3] - of[4] - of[5];
        #pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) {
            const long long sum = static_cast<long long>(of[slot]);
            slots[2 * slot + part] = above ? above[2 * slot + part] - sum : sum;
        }
    }
}

// The best split of every node, a block a node.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) grow_evaluate(
    const unsigned long long* __restrict__ counted, long long columns, const double* __restrict__ rule,
    const long long* __restrict__ state, long long root, const long long* __restrict__ level,
    const long long* __restrict__ above, long long* __restrict__ sums, double* __restrict__ best)
{
    __shared__ unsigned long long partial[WARPS];
    const long long nodes = root ? 1 : 2 * state[0];
    const bool learned = rule[LEARNED] != 0.0 && rule[MISSING] != 0.0;
    for (long long number = blockIdx.x; number < nodes; number += gridDim.x) {
        const long long* node = level + number * FIELDS;
        const long long* pair = root ? node : level + (number ^ (node[COUNTED] ? 0 : 1)) * FIELDS;
        const double own = worth(node[GRADIENT] * rule[UNIT_G], node[HESSIAN] * rule[UNIT_H], rule);
        Best mine{0.0, 0, 0, 0};
        unsigned long long key = 0;
        for (long long k = threadIdx.x; k < columns; k += THREADS) {
            long long* slots = sums + (number * columns + k) * SLOTS * 2;
            const long long* parent = node[COUNTED] ? nullptr : above + (node[PARENT] * columns + k) * SLOTS * 2;
            complete(counted + (number / 2 * columns + k) * PLANES * 2, pair + GRADIENT, parent, slots);
            const double before = mine.gain;
            long long g = learned ? 0 : slots[0], h = learned ? 0 : slots[1];
            if (!learned && rule[MISSING] != 0.0) attempt(g, h, node, rule, own, LEAF, mine);
            const int last = learned ? LEVELS : LEVELS - 1;
            #pragma unroll 1
            for (int value = 0; value < last; value++) {
                g += slots[2 * value + 2];
                h += slots[2 * value + 3];
                attempt(g, h, node, rule, own, value, mine);
            }
            // With missing values on the left: from all but the highest level down.
            g += slots[0];
            h += slots[1];
            #pragma unroll 1
            for (int value = LEVELS - 2; learned && value >= 0; value--) {
                g -= slots[2 * value + 4];
                h -= slots[2 * value + 5];
                attempt(g, h, node, rule, own, value + SLOTS, mine);
            }
            if (mine.gain > before)
                key = static_cast<unsigned long long>(__float_as_uint(narrow(mine.gain))) << 32
                    | (0xffffffffu - static_cast<unsigned>(k));
        }
        const unsigned long long most = reduce<THREADS>(key, Most{}, partial);
        double* out = best + number * FIELDS;
        if (most == 0) {
            if (threadIdx.x == 0) out[GAIN] = 0.0;
        } else if (key == most) {
            out[GAIN] = mine.gain;
            out[PLACE] = 0xffffffffu - static_cast<unsigned>(key);
            out[HIGHEST] = static_cast<double>(mine.highest);
            out[LEFT_GRADIENT] = static_cast<double>(mine.gradient);
            out[LEFT_HESSIAN] = static_cast<double>(mine.hessian);
        }
    }
}

// A node that is a leaf until it is split.
__device__ __forceinline__ void note(
    long long* tree, double* fact, long long number, long long parent, long long gradient, long long hessian,
    const double* rule)
{
    const double total = hessian * rule[UNIT_H];
    tree[4 * number] = parent;
    tree[4 * number + 1] = LEAF;
    tree[4 * number + 2] = 0;
    tree[4 * number + 3] = 2 * LEAF;
    fact[3 * number] = 0.0;
    fact[3 * number + 1] = rounded(total);
    fact[3 * number + 2] = rounded(weight(gradient * rule[UNIT_G], total, rule) * rule[ETA]);
}

// Writes the nodes of a level into the tree and lists the next one; one thread, since children are numbered in order.
extern "C" __global__ void __launch_bounds__(THREADS) grow_decide(
    const long long* __restrict__ column, const double* __restrict__ rule, long long root, long long last,
    const long long* __restrict__ level, const double* __restrict__ best, long long* __restrict__ next,
    long long* __restrict__ tree, double* __restrict__ fact, long long* __restrict__ task,
    long long* __restrict__ state)
{
    if (threadIdx.x || blockIdx.x) return;
    const long long nodes = root ? 1 : 2 * state[0];
    if (root) {
        note(tree, fact, 0, LEAF, level[GRADIENT], level[HESSIAN], rule);
        state[2] = 1;
    }
    long long found = 0;
    task[0] = 0;
    for (long long number = 0; number < nodes; number++) {
        const long long* node = level + number * FIELDS;
        const double* split = best + number * FIELDS;
        const long long left_g = static_cast<long long>(split[LEFT_GRADIENT]);
        const long long left_h = static_cast<long long>(split[LEFT_HESSIAN]);
        if (split[GAIN] <= LEAST_GAIN || split[GAIN] < rule[GAMMA] || left_h == 0 || left_h == node[HESSIAN]) continue;
        const long long own = node[ID], child = state[2];
        const int highest = static_cast<int>(split[HIGHEST]);
        const bool to_left = highest >= SLOTS;
        tree[4 * own + 1] = child;
        tree[4 * own + 2] = column[static_cast<long long>(split[PLACE])];
        tree[4 * own + 3] = 2 * (to_left ? highest - SLOTS : highest) + to_left;
        fact[3 * own] = split[GAIN];
        fact[3 * own + 2] = weight(node[GRADIENT] * rule[UNIT_G], node[HESSIAN] * rule[UNIT_H], rule);
        note(tree, fact, child, own, left_g, left_h, rule);
        note(tree, fact, child + 1, own, node[GRADIENT] - left_g, node[HESSIAN] - left_h, rule);
        state[2] += 2;
        if (!last) {
            const long long small = 2 * left_h <= node[HESSIAN] ? 0 : 1;
            for (long long side = 0; side < 2; side++) {
                long long* to = next + (2 * found + side) * FIELDS;
                to[ID] = child + side;
                to[GRADIENT] = side ? node[GRADIENT] - left_g : left_g;
                to[HESSIAN] = side ? node[HESSIAN] - left_h : left_h;
                to[COUNTED] = side == small;
                to[PARENT] = number;
            }
            task[found + 1] = task[found] + (node[ROWS] + CHUNK - 1) / CHUNK;
        }
        found++;
    }
    state[0] = last ? 0 : found;
    state[1] = nodes;
}

// Whether a value goes left: at most `highest`, where -1 is the lowest value or, with `high`, the highest.
__device__ __forceinline__ bool goes_left(signed char value, int highest, bool high) {
    return value <= highest && !(high && value < 0);
}

// Moves the rows of every node that is split to its children, a chunk a block: left ones to the front of the node's
// places, right ones to the back. `cursor` [splits, 2] counts both; rows of a chunk stay in order.
extern "C" __global__ void __launch_bounds__(THREADS) grow_part(
    const signed char* __restrict__ x, long long ld, const long long* __restrict__ column,
    const double* __restrict__ rule, const long long* __restrict__ level, const long long* __restrict__ next,
    const double* __restrict__ best, const long long* __restrict__ task, const long long* __restrict__ state,
    const unsigned* __restrict__ order, unsigned* __restrict__ to, unsigned long long* __restrict__ cursor)
{
    __shared__ unsigned votes[CHUNK / WARP];
    __shared__ int before[CHUNK / WARP + 1];
    __shared__ unsigned long long taken[2];
    const long long splits = state[0];
    for (long long chunk = blockIdx.x; splits && chunk < task[splits]; chunk += gridDim.x) {
        const long long split = split_of(task, splits, chunk), number = next[2 * split * FIELDS + PARENT];
        const long long* node = level + number * FIELDS;
        const long long done = (chunk - task[split]) * CHUNK, first = node[FIRST] + done;
        const int rows = static_cast<int>(min(static_cast<long long>(CHUNK), node[ROWS] - done));
        const double* chosen = best + number * FIELDS;
        const int coded = static_cast<int>(chosen[HIGHEST]), highest = coded >= SLOTS ? coded - SLOTS : coded;
        const bool high = rule[LEARNED] != 0.0 && coded < SLOTS;
        const signed char* values = x + column[static_cast<long long>(chosen[PLACE])] * ld;
        for (int place = threadIdx.x; place < CHUNK; place += THREADS) {
            const bool left = place < rows && goes_left(values[order[first + place]], highest, high);
            const unsigned vote = __ballot_sync(ALL_LANES, left);
            if (threadIdx.x % WARP == 0) votes[place / WARP] = vote;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int lefts = 0;
            for (int i = 0; i < CHUNK / WARP; i++) {
                before[i] = lefts;
                lefts += __popc(votes[i]);
            }
            taken[0] = atomicAdd(cursor + 2 * split, static_cast<unsigned long long>(lefts));
            taken[1] = atomicAdd(cursor + 2 * split + 1, static_cast<unsigned long long>(rows - lefts));
        }
        __syncthreads();
        const long long end = node[FIRST] + node[ROWS];
        for (int place = threadIdx.x; place < rows; place += THREADS) {
            const unsigned vote = votes[place / WARP], bit = 1u << place % WARP;
            const int lefts = before[place / WARP] + __popc(vote & (bit - 1));
            const long long target = vote & bit ? node[FIRST] + static_cast<long long>(taken[0]) + lefts
                                                : end - 1 - static_cast<long long>(taken[1]) - (place - lefts);
            to[target] = order[first + place];
        }
        __syncthreads();
    }
}

// Where the children's rows lie, and the chunks of those that are counted; one thread.
extern "C" __global__ void __launch_bounds__(THREADS) grow_list(
    const long long* __restrict__ level, const unsigned long long* __restrict__ cursor,
    const long long* __restrict__ state, long long* __restrict__ next, long long* __restrict__ task)
{
    if (threadIdx.x || blockIdx.x) return;
    task[0] = 0;
    for (long long split = 0; split < state[0]; split++) {
        long long *left = next + 2 * split * FIELDS, *right = left + FIELDS;
        const long long* node = level + left[PARENT] * FIELDS;
        left[ROWS] = static_cast<long long>(cursor[2 * split]);
        right[ROWS] = node[ROWS] - left[ROWS];
        left[FIRST] = node[FIRST];
        right[FIRST] = node[FIRST] + left[ROWS];
        task[split + 1] = task[split] + ((left[COUNTED] ? left : right)[ROWS] + CHUNK - 1) / CHUNK;
    }
}

// Adds every row's leaf to its output.
extern "C" __global__ void __launch_bounds__(THREADS) grow_output(
    const signed char* __restrict__ x, long long ld, long long rows, const double* __restrict__ rule,
    const long long* __restrict__ tree, const double* __restrict__ fact, float* __restrict__ margin)
{
    const bool learned = rule[LEARNED] != 0.0;
    for (long long row = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; row < rows;
         row += static_cast<long long>(gridDim.x) * THREADS) {
        long long node = 0;
        while (tree[4 * node + 1] >= 0) {
            const long long coded = tree[4 * node + 3];
            const int highest = static_cast<int>((coded - (coded & 1)) / 2);
            const bool left = goes_left(x[tree[4 * node + 2] * ld + row], highest, learned && !(coded & 1));
            node = tree[4 * node + 1] + !left;
        }
        margin[row] = narrow(widen(margin[row]) + fact[3 * node + 2]);
    }
}
