// Sums of gradients and Hessians of a node's rows by level of a column, four rows at a time.
//
// Gradients and Hessians are cut into bytes, and bytes of four rows lie in a word; a plane of the codes of four rows
// picks among them with __dp4a, the uppermost byte of a gradient with its sign. Levels follow from planes by
// subtraction, as in levels.cu.
#pragma once
#include "codes.cuh"
#include "grownodes.cuh"

constexpr int BYTES = 4;                // of a gradient

// The split that a chunk belongs to.
__device__ __forceinline__ long long split_of(const long long* task, long long splits, long long chunk) {
    long long low = 0, high = splits;
    while (high - low > 1) {
        const long long middle = (low + high) / 2;
        if (task[middle] <= chunk) low = middle; else high = middle;
    }
    return low;
}

// Sums over rows of the two columns of a byte of the records: bytes of gradients and Hessians, per plane of the codes.
template <int HESSIAN_BYTES, int USED> struct Sums {
    static constexpr int ALL = BYTES + HESSIAN_BYTES;
    unsigned sum[2][USED][ALL];

    __device__ __forceinline__ void add(unsigned codes, const unsigned* word) {
        unsigned mask[2][PLANES];
        #pragma unroll
        for (int which = 0; which < 2; which++) {
            const unsigned one = codes >> 4 * which & ONES, two = codes >> (4 * which + 1) & ONES;
            const unsigned four = codes >> (4 * which + 2) & ONES;
            mask[which][0] = one;
            mask[which][1] = two;
            mask[which][2] = four;
            mask[which][3] = one & two;
            mask[which][4] = two & four;
        }
        #pragma unroll
        for (int byte = 0; byte < ALL; byte++) {
            const unsigned values = word[byte * GROUPS];
            #pragma unroll
            for (int i = 0; i < 2 * USED; i++) {
                unsigned& total = sum[i / USED][i % USED][byte];
                const unsigned picked = mask[i / USED][i % USED];
                if (byte == BYTES - 1)
                    total = static_cast<unsigned>(__dp4a(
                        static_cast<int>(picked), static_cast<int>(values), static_cast<int>(total)));
                else
                    total = __dp4a(picked, values, total);
            }
        }
    }
};

// Four rows in order.
__device__ __forceinline__ uint4 following(long long place) {
    const unsigned first = static_cast<unsigned>(place);
    return make_uint4(first, first + 1, first + 2, first + 3);
}

// The quanta of a stage's rows into `word`, four rows a word.
template <int HESSIAN_BYTES> __device__ __forceinline__ void weigh(
    long long rows, const unsigned* __restrict__ quanta, long long place, int left, unsigned* word)
{
    const int group = threadIdx.x % GROUPS;
    if (threadIdx.x >= GROUPS) return;
    uint4 g = four(quanta + place, left);
    if (HESSIAN_BYTES == 1) {
        word[BYTES * GROUPS + group] = (g.x & 1) | (g.y & 1) << 8 | (g.z & 1) << 16 | (g.w & 1) << 24;
        const int own[4] = {static_cast<int>(g.x), static_cast<int>(g.y), static_cast<int>(g.z), static_cast<int>(g.w)};
        g = make_uint4(own[0] >> 1, own[1] >> 1, own[2] >> 1, own[3] >> 1);
    } else {
        const uint4 h = four(quanta + rows + place, left), parts = transposed(h.x, h.y, h.z, h.w);
        unsigned* to = word + BYTES * GROUPS + group;
        to[0] = parts.x;
        to[GROUPS] = parts.y;
        to[2 * GROUPS] = parts.z;
        to[3 * GROUPS] = parts.w;
    }
    const uint4 parts = transposed(g.x, g.y, g.z, g.w);
    word[group] = parts.x;
    word[GROUPS + group] = parts.y;
    word[2 * GROUPS + group] = parts.z;
    word[3 * GROUPS + group] = parts.w;
}

// The records of a stage's rows into `tile`, and their quanta into `word`, four rows a word of both.
template <int HESSIAN_BYTES> __device__ __forceinline__ void stage(
    const unsigned char* __restrict__ record, long long stride, long long begin, int bytes, long long rows,
    const unsigned* __restrict__ order, const unsigned* __restrict__ quanta, long long root, long long place, int left,
    unsigned* tile, unsigned* word)
{
    const int group = threadIdx.x % GROUPS, half = threadIdx.x / GROUPS * WIDE_BYTES;
    if (half < bytes) {
        const uint4 number = root ? following(place) : four(order + place, left);
        const unsigned row[4] = {number.x, number.y, number.z, number.w};
        uint4 of[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned char* from = record + row[i] * stride + begin + half;
            of[i] = i < left ? __ldg(reinterpret_cast<const uint4*>(from)) : make_uint4(0, 0, 0, 0);
        }
        const uint4 across[4] = {transposed(of[0].x, of[1].x, of[2].x, of[3].x),
                                 transposed(of[0].y, of[1].y, of[2].y, of[3].y),
                                 transposed(of[0].z, of[1].z, of[2].z, of[3].z),
                                 transposed(of[0].w, of[1].w, of[2].w, of[3].w)};
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned* to = tile + (half + 4 * i) * PITCH + group;
            to[0] = across[i].x;
            to[PITCH] = across[i].y;
            to[2 * PITCH] = across[i].z;
            to[3 * PITCH] = across[i].w;
        }
    }
    weigh<HESSIAN_BYTES>(rows, quanta, place, left, word);
}

// Sums of all threads, byte by byte, brought together in shared memory and added to those of their columns.
template <int HESSIAN_BYTES, int USED> __device__ __forceinline__ void flush(
    const Sums<HESSIAN_BYTES, USED>& sums, int lanes, int part, long long begin, int bytes, long long columns,
    unsigned* total, unsigned long long* __restrict__ out)
{
    constexpr int ALL = BYTES + HESSIAN_BYTES;
    static_assert(2 * USED * ALL <= PITCH, "totals take the place of the records in shared memory");
    for (int i = threadIdx.x; i < 2 * USED * ALL * TILE; i += THREADS) total[i] = 0;
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 2 * USED * ALL; i++) {
        unsigned value = sums.sum[i / (USED * ALL)][i / ALL % USED][i % ALL];
        for (int other = lanes; other < WARP; other *= 2) value += __shfl_xor_sync(ALL_LANES, value, other);
        if (threadIdx.x % WARP < lanes && part < bytes) atomicAdd(total + i * TILE + part, value);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * USED * TILE; i += THREADS) {
        const int which = i / TILE / USED, plane = i / TILE % USED;
        const long long k = 2 * (begin + i % TILE) + which;
        if (k >= columns) continue;
        const unsigned* own = total + i / TILE * ALL * TILE + i % TILE;
        unsigned long long gradient = static_cast<unsigned long long>(
            static_cast<long long>(static_cast<int>(own[(BYTES - 1) * TILE]))) << 8 * (BYTES - 1);
        unsigned long long hessian = 0;
        #pragma unroll
        for (int byte = 0; byte < ALL; byte++) {
            const unsigned long long sum = own[byte * TILE];
            if (byte < BYTES - 1) gradient += sum << 8 * byte;
            if (byte >= BYTES) hessian += sum << 8 * (byte - BYTES);
        }
        if (!(gradient | hessian)) continue;
        atomicAdd(out + (k * PLANES + plane) * 2, gradient);
        atomicAdd(out + (k * PLANES + plane) * 2 + 1, hessian);
    }
    __syncthreads();
}

// Sums of the rows of the smaller children (of all rows where `root`): a chunk of rows and TILE bytes of their records
// a block; a lane adds up a byte, that is two columns, of every row, or of every 2nd, 4th ... group of rows where
// `lanes` of them do for a record.
template <int HESSIAN_BYTES, int USED> __device__ __forceinline__ void count(
    const unsigned char* __restrict__ record, long long stride, long long columns, long long lanes, long long rows,
    const unsigned* __restrict__ order, const unsigned* __restrict__ quanta, long long nodes,
    const long long* __restrict__ level, const long long* __restrict__ task, const long long* __restrict__ state,
    long long root, unsigned long long* __restrict__ counted)
{
    __shared__ unsigned tile[TILE * PITCH], word[(BYTES + HESSIAN_BYTES) * GROUPS];
    order = of_tree(order, rows);
    quanta = of_tree(quanta, rows * (HESSIAN_BYTES == 1 ? 1 : 2));
    level = of_tree(level, nodes * FIELDS);
    task = of_tree(task, nodes + 1);
    counted = of_tree(counted, most_counted(nodes) * columns * PLANES * 2);
    const long long splits = root ? 1 : of_tree(state, 3)[0], chunks = splits ? task[splits] : 0;
    const long long tiles = (stride + TILE - 1) / TILE;
    const int own = static_cast<int>(lanes), part = threadIdx.x % own, each = THREADS / own;
    for (long long item = blockIdx.x; item < chunks * tiles; item += gridDim.x) {
        const long long chunk = item / tiles, begin = item % tiles * TILE, split = split_of(task, splits, chunk);
        const int bytes = static_cast<int>(min(static_cast<long long>(TILE), stride - begin));
        const long long* node = level + (root ? 0 : 2 * split + (level[2 * split * FIELDS + COUNTED] ? 0 : 1)) * FIELDS;
        const long long done = (chunk - task[split]) * CHUNK, first = node[FIRST] + done;
        const int here = static_cast<int>(min(static_cast<long long>(CHUNK), node[ROWS] - done));
        Sums<HESSIAN_BYTES, USED> sums{};
        for (int begun = 0; begun < here; begun += STAGE) {
            const int group = threadIdx.x % GROUPS, left = here - begun - 4 * group;
            stage<HESSIAN_BYTES>(
                record, stride, begin, bytes, rows, order, quanta, root, first + begun + 4 * group, left, tile, word);
            __syncthreads();
            const int groups = (min(STAGE, here - begun) + 3) / 4;
            if (part < bytes)
                for (int i = threadIdx.x / own; i < groups; i += each) sums.add(tile[part * PITCH + i], word + i);
            __syncthreads();
        }
        flush(sums, own, part, begin, bytes, columns, tile, counted + split * columns * PLANES * 2);
    }
}
