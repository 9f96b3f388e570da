// Sums and other reductions over a block, in an order that depends on nothing but the block size: bit-reproducible.
#pragma once
#include "runs.cuh"

struct Sum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct Least {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Most {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; }
};

// The reduction of every thread's value, known to all threads. `partial` holds one value per warp of the block. Ends
// with a barrier, so the caller may use `partial` again at once.
template <int THREADS, class T, class Operation>
__device__ __forceinline__ T reduce(T value, Operation operation, T* partial) {
    #pragma unroll
    for (int lanes = WARP / 2; lanes; lanes /= 2) value = operation(value, __shfl_xor_sync(ALL_LANES, value, lanes));
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = value;
    __syncthreads();
    value = partial[0];
    #pragma unroll
    for (int warp = 1; warp < THREADS / WARP; warp++) value = operation(value, partial[warp]);
    __syncthreads();
    return value;
}
