// Nodes of boosted trees, as spec/forest.py lays them out, and the step of a row from one to the next.
#pragma once
#include "floats.cuh"

constexpr unsigned LEAF = 0xffffffffu;

__device__ __forceinline__ bool missing(signed char) { return false; }
__device__ __forceinline__ bool missing(float value) { return is_nan(value); }

// Whether a value lies below a threshold, which -ftz=true must not flush.
template <class T> __device__ __forceinline__ bool lies_below(T value, unsigned threshold)
{
    return Keys<float>::of(static_cast<float>(value)) < Keys<float>::of(__uint_as_float(threshold));
}

// The node that a row comes to below a split.
template <class T>
__device__ __forceinline__ unsigned below(const T* x, long long ld, long long row, const uint4& split)
{
    const T value = __ldg(x + (split.x >> 1) * ld + row);
    const bool left = missing(value) ? split.x & 1 : lies_below(value, split.y);
    return left ? split.z : split.w;
}
