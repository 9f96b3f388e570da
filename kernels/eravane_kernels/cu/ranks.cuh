// Twice the average rank of a value among the values of its run.
#pragma once
#include "floats.cuh"
#include "reduce.cuh"
#include "sort.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 3;

// Sorts the keys of a run; all threads may read them afterwards.
template <class T> __device__ __forceinline__ void sort_run(const T* values, int rows, typename Keys<T>::Key* keys) {
    const int slots = slots_for(rows);
    for (int slot = threadIdx.x; slot < slots; slot += THREADS)
        keys[place(slot)] = slot < rows ? Keys<T>::of(values[slot]) : Keys<T>::NONE;
    __syncthreads();
    sort<THREADS>(keys, slots);
}

// Whether a sorted run holds numbers only, no NaN and no infinity.
template <class T> __device__ __forceinline__ bool all_finite(const typename Keys<T>::Key* keys, int rows) {
    return rows == 0 || (keys[0] > Keys<T>::MINUS_INFINITY && keys[place(rows - 1)] < Keys<T>::PLUS_INFINITY);
}

// 2..2n: the first and the last rank of the run of equal keys, added. Most keys have no equal, so one look past the
// first saves the second bisection.
template <class Key> __device__ __forceinline__ int twice_rank(const Key* keys, int rows, Key key) {
    const int first = position(keys, 0, rows, key, false);
    const bool alone = first + 1 >= rows || keys[place(first + 1)] != key;
    const int end = alone ? first + 1 : position(keys, first + 1, rows, key, true);
    return first + 1 + end;
}
