// The tree as it is written: nodes, splits, and the nodes of the next level.
#pragma once
#include "growsplits.cuh"

constexpr int GAIN = 0, PLACE = 1, HIGHEST = 2, LEFT_GRADIENT = 3, LEFT_HESSIAN = 4, OWN = 5;   // OWN: which split
constexpr int UP = 0, CHILD = 1, COLUMN = 2, CODED = 3, GAINED = 4, SUM_H = 5, WEIGHT = 6, NODE = 7;
constexpr double LEAST_GAIN = 9.999999974752427e-07;   // float32 1e-6

__device__ __forceinline__ long long bits_of(double value) { return __double_as_longlong(value); }
__device__ __forceinline__ double from_bits(long long bits) { return __longlong_as_double(bits); }

// A node that is a leaf until it is split.
__device__ __forceinline__ void note(
    long long* tree, long long number, long long parent, long long gradient, long long hessian, const double* rule)
{
    const double total = hessian * rule[UNIT_H];
    long long* node = tree + number * NODE;
    node[UP] = parent;
    node[CHILD] = LEAF;
    node[COLUMN] = 0;
    node[CODED] = 2 * LEAF;
    node[GAINED] = 0;
    node[SUM_H] = bits_of(rounded(total));
    node[WEIGHT] = bits_of(rounded(weight(gradient * rule[UNIT_G], total, rule) * rule[ETA]));
}

// Whether a node is split as was found best.
__device__ __forceinline__ bool gains(const long long* node, const long long* split, const double* rule) {
    const double gain = from_bits(split[GAIN]);
    if (gain <= LEAST_GAIN || gain < rule[GAMMA]) return false;
    return split[LEFT_HESSIAN] != 0 && split[LEFT_HESSIAN] != node[HESSIAN];
}

// Writes a split and its two leaves into the tree.
__device__ __forceinline__ void divide(
    long long* tree, const long long* node, const long long* split, const long long* column, long long child,
    const double* rule)
{
    const bool to_left = split[HIGHEST] >= SLOTS;
    long long* own = tree + node[ID] * NODE;
    own[CHILD] = child;
    own[COLUMN] = column[split[PLACE]];
    own[CODED] = 2 * (to_left ? split[HIGHEST] - SLOTS : split[HIGHEST]) + to_left;
    own[GAINED] = split[GAIN];
    own[WEIGHT] = bits_of(weight(node[GRADIENT] * rule[UNIT_G], node[HESSIAN] * rule[UNIT_H], rule));
    note(tree, child, node[ID], split[LEFT_GRADIENT], split[LEFT_HESSIAN], rule);
    note(tree, child + 1, node[ID], node[GRADIENT] - split[LEFT_GRADIENT], node[HESSIAN] - split[LEFT_HESSIAN], rule);
}

// The children of a split in the list of the next level; the one with the smaller sum of Hessians is counted.
__device__ __forceinline__ void enlist(
    long long* next, const long long* node, const long long* split, long long number, long long child)
{
    const long long small = 2 * split[LEFT_HESSIAN] <= node[HESSIAN] ? 0 : 1;
    for (long long side = 0; side < 2; side++) {
        long long* to = next + side * FIELDS;
        to[ID] = child + side;
        to[GRADIENT] = side ? node[GRADIENT] - split[LEFT_GRADIENT] : split[LEFT_GRADIENT];
        to[HESSIAN] = side ? node[HESSIAN] - split[LEFT_HESSIAN] : split[LEFT_HESSIAN];
        to[COUNTED] = side == small;
        to[PARENT] = number;
    }
}
