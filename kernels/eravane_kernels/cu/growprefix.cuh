// Sums over the threads of a block before each of them.
#pragma once
#include "records.cuh"

// The sum of the values of the threads before this one, and of all of them. Ends with a barrier.
struct Before {
    long long here, all;
};

__device__ __forceinline__ Before before(long long value, long long* partial) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long sum = value;
    #pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const long long other = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == WARP - 1) partial[warp] = sum;
    __syncthreads();
    Before found{sum - value, 0};
    #pragma unroll
    for (int i = 0; i < WARPS; i++) {
        if (i < warp) found.here += partial[i];
        found.all += partial[i];
    }
    __syncthreads();
    return found;
}
