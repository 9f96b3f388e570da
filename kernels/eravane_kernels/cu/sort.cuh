// Bitonic sort of keys by one block, and binary search in the result. Keys lie in shared memory, or in a slice of
// global memory where the run is too long for that; the code is the same and so is the result.
//
// A thread takes 2^BITS keys into registers and does that many strides of the network on them, so that 3 strides cost
// one trip through memory and one barrier. Slot i lies at place i + i / 32: then the keys of a warp, 8 apart in the
// last strides, fall into different banks of shared memory.
#pragma once

__device__ __forceinline__ int place(int slot) { return slot + (slot >> 5); }

// Strides 2^(BITS-1) * least .. least of the stage that merges to sorted sequences of `stage` keys.
template <int THREADS, int BITS, class Key>
__device__ __forceinline__ void merge(Key* keys, int slots, int stage, int least) {
    constexpr int COUNT = 1 << BITS;
    for (int group = threadIdx.x; group < slots >> BITS; group += THREADS) {
        const int first = (group & ~(least - 1)) << BITS | (group & (least - 1));
        const bool ascending = (first & stage) == 0;
        Key held[COUNT];
        #pragma unroll
        for (int i = 0; i < COUNT; i++) held[i] = keys[place(first + i * least)];
        #pragma unroll
        for (int stride = COUNT / 2; stride; stride /= 2)
            #pragma unroll
            for (int i = 0; i < COUNT; i++) {
                if (i & stride) continue;
                const Key a = held[i], b = held[i | stride];
                const bool swap = (b < a) == ascending;
                held[i] = swap ? b : a;
                held[i | stride] = swap ? a : b;
            }
        #pragma unroll
        for (int i = 0; i < COUNT; i++) keys[place(first + i * least)] = held[i];
    }
    __syncthreads();
}

// Sorts `slots` keys, a power of two, ascending. The block has written them and passed a barrier; it passes one again
// after the last write.
template <int THREADS, class Key> __device__ __forceinline__ void sort(Key* keys, int slots) {
    for (int stage = 2; stage <= slots; stage *= 2) {
        int strides = 31 - __clz(stage);
        if (strides % 3 == 1) merge<THREADS, 1>(keys, slots, stage, 1 << (strides - 1));
        if (strides % 3 == 2) merge<THREADS, 2>(keys, slots, stage, 1 << (strides - 2));
        for (strides -= strides % 3; strides; strides -= 3) merge<THREADS, 3>(keys, slots, stage, 1 << (strides - 3));
    }
}

// How many of the first `end` sorted keys are below `key`, or with `equal` not above it; the first `begin` are.
template <class Key>
__device__ __forceinline__ int position(const Key* keys, int begin, int end, Key key, bool equal) {
    while (begin < end) {
        const int middle = begin + (end - begin) / 2;
        const Key other = keys[place(middle)];
        if (other < key || (equal && other == key)) begin = middle + 1;
        else end = middle;
    }
    return begin;
}

// The smallest power of two that is not below `rows`.
__device__ __forceinline__ int slots_for(int rows) { return rows > 1 ? 1 << (32 - __clz(rows - 1)) : 1; }
