// Statistics of levels 0..4 from how many rows hold each, exact before the last division.
//
// As stats_of_counts and quantiles_of_counts of spec/statistics.py, but for the standard deviation, which follows from
// integer sums.
#pragma once
#include "floats.cuh"

constexpr int LEVELS = 5, SLOTS = 6;

// Where the statistics of a run go: arrays [E, C], and [Q, E, C] for quantiles.
struct Statistics {
    long long *count, *missing;
    double *mean, *deviation, *least, *most, *mode, *quantiles;
    const double* wanted;
    long long number, cells;   // of quantiles, and of runs in all
};

__device__ __forceinline__ double quantile_of(const long long* counts, long long rows, double share) {
    if (rows == 0) return undefined();
    const double virtual_rank = (rows - 1) * share;
    const long long below = static_cast<long long>(floor(virtual_rank)), above = min(below + 1, rows - 1);
    const double weight = virtual_rank - below;
    long long sum = 0;
    int low = 0, high = 0;
    #pragma unroll
    for (int level = 0; level < LEVELS; level++) {
        sum += counts[level];
        low += sum <= below;
        high += sum <= above;
    }
    const double gap = high - low;
    return weight >= 0.5 ? high - gap * (1.0 - weight) : low + gap * weight;
}

// All statistics but quantiles of the run `cell`; counts of levels 0..4 and missing.
__device__ __forceinline__ void describe(const long long* counts, const Statistics& to, long long cell) {
    long long rows = 0, first = 0, second = 0, most_rows = 0;
    int least = LEVELS, most = -1, mode = 0;
    #pragma unroll
    for (int level = 0; level < LEVELS; level++) {
        const long long held = counts[level];
        rows += held;
        first += level * held;
        second += level * level * held;
        if (held) most = level;
        if (held && least == LEVELS) least = level;
        if (held > most_rows) {
            most_rows = held;
            mode = level;
        }
    }
    const double n = static_cast<double>(rows);
    to.count[cell] = rows;
    to.missing[cell] = counts[LEVELS];
    to.mean[cell] = rows ? first / n : undefined();
    to.deviation[cell] = rows ? sqrt((rows * second - first * first) / (n * n)) : undefined();
    to.least[cell] = rows ? least : undefined();
    to.most[cell] = rows ? most : undefined();
    to.mode[cell] = rows ? mode : undefined();
}
