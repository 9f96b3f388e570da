// Nodes of the level that is being split, and rules: what the kernels of a tree hand one another.
#pragma once
#include "records.cuh"

constexpr int CHUNK = 4096;             // rows of a node that a block takes at once, as CHUNK in cuda/growth.py
constexpr int PLANES = 5;               // bits of the codes: 0, 1, 2, 0 and 1, 1 and 2 (missing)
constexpr int ID = 0, FIRST = 1, ROWS = 2, GRADIENT = 3, HESSIAN = 4, COUNTED = 5, PARENT = 6, FIELDS = 8;
constexpr int ALPHA = 0, LAMBDA = 1, GAMMA = 2, LEAST_CHILD = 3, ETA = 4, LEARNED = 5;
constexpr int UNIT_G = 6, UNIT_H = 7, MISSING = 8, FROM_WEIGHT = 9, RULES = 10;

// The part of an array that belongs to this block's tree, `each` values a tree.
template <class T> __device__ __forceinline__ T* of_tree(T* array, long long each) { return array + blockIdx.y * each; }

// Most splits whose children are counted, of a level of up to `nodes` nodes.
__device__ __forceinline__ long long most_counted(long long nodes) { return max(1LL, nodes / 2); }
