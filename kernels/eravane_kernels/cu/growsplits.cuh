// Gains and weights as XGBoost rounds them, and the best split among the sums of a column's levels.
#pragma once
#include "floats.cuh"
#include "grownodes.cuh"

constexpr int LEVELS = 5, SLOTS = 6;
constexpr double BEYOND_32 = 0x1p128;   // more than float32 holds: infinite once it is rounded
constexpr long long LEAF = -1;

__device__ __forceinline__ double rounded(double value) { return widen(narrow(value)); }

__device__ __forceinline__ double shrunk(double gradient, const double* rule) {
    if (gradient > rule[ALPHA]) return gradient - rule[ALPHA];
    if (gradient < -rule[ALPHA]) return gradient + rule[ALPHA];
    return 0.0;
}

__device__ __forceinline__ double weight(double gradient, double hessian, const double* rule) {
    if (hessian <= 0.0 || (hessian < rule[LEAST_CHILD] && rule[FROM_WEIGHT] == 0.0)) return 0.0;
    return rounded(-shrunk(gradient, rule) / (hessian + rule[LAMBDA]));
}

// In float32, as a double. A quotient of float32 values, rounded to double and then to float32, is rounded once.
__device__ __forceinline__ double worth(double gradient, double hessian, const double* rule) {
    if (hessian <= 0.0) return 0.0;
    if (rule[FROM_WEIGHT] != 0.0) {
        const double own = weight(gradient, hessian, rule);
        const double loss = 2.0 * gradient * own + (hessian + rule[LAMBDA]) * rounded(own * own);
        return rounded(-(loss + 2.0 * rule[ALPHA] * fabs(own)));
    }
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
    if (rule[FROM_WEIGHT] != 0.0 && (left <= 0.0 || right <= 0.0)) return;
    const double both = rounded(
        worth(left_g * rule[UNIT_G], left, rule) + worth((node[GRADIENT] - left_g) * rule[UNIT_G], right, rule));
    const double gain = rounded(both - own);
    if (gain > best.gain && gain < BEYOND_32) best = {gain, highest, left_g, left_h};
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
