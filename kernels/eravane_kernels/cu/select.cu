// Order statistics of float columns per (era, column) without sorting: quantiles, and the median absolute deviation.
//
// Called by cuda/statistics.py (float_quantiles, float_deviation); a run may be an era or a window of eras, of any
// length: nothing but histograms lies in shared memory.
//
// Shapes: x float32 [C, N] with NaN for missing, columns `ld` values apart; begins, ends int64 [E]; quantiles float64
// [Q] within 0..1; values float64 [Q, E, C]; centre and deviation float64 [E, C] (the median of |x - centre|); NaN
// where a run holds no value; bad uint8 [E, C], 1 where a run holds an infinity.
// Radix selection: a histogram of the leading digit gives the digit of the wanted rank and how many values lie
// before it; then the next digit, among the values that share what is known. The leading histogram serves every
// quantile. Integer atomics in shared memory, since which bin a value hits is known to its thread alone; their sums do
// not depend on the order.
// Launch: THREADS threads a block, one run a block at a time, any grid. Exact: NumPy's interpolation, operation for
// operation (with --fmad=false). Registers: at most 64, no spills.
#include "floats.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;
constexpr int DIGIT = 11;
constexpr int BINS = 1 << DIGIT;
constexpr int BINS_PER_THREAD = BINS / THREADS;

struct Shared {
    unsigned leading[BINS], bins[BINS];
    unsigned partial[THREADS / WARP];
    unsigned long long least[THREADS / WARP];
    int digit, before;
};

// The keys of a run, NONE for a missing value.
struct Values {
    using Key = Keys<float>::Key;
    static constexpr Key NONE = Keys<float>::NONE;
    const float* run;
    __device__ __forceinline__ Key operator()(int row) const {
        const float value = __ldg(run + row);
        return is_nan(value) ? NONE : Keys<float>::of(value);
    }
    __device__ static double value(Key key) { return Keys<float>::value(key); }
};
struct Deviations {
    using Key = Keys<double>::Key;
    static constexpr Key NONE = Keys<double>::NONE;
    const float* run;
    double centre;
    __device__ __forceinline__ Key operator()(int row) const {
        const float value = __ldg(run + row);
        return is_nan(value) ? NONE : Keys<double>::of(fabs(widen(value) - centre));
    }
    __device__ static double value(Key key) { return Keys<double>::value(key); }
};

// Counts, per digit (bits `low`..`high`-1), the values whose bits from `high` up are those of `known`.
template <class Source>
__device__ __forceinline__ void histogram(const Source& source, int rows, typename Source::Key known, int high, int low,
                                          unsigned* bins) {
    using Key = typename Source::Key;
    constexpr int KEY_BITS = 8 * sizeof(Key);
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
    __syncthreads();
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        const Key key = source(row);
        if (key == Source::NONE || (high < KEY_BITS && key >> high != known >> high)) continue;
        atomicAdd(&bins[(key >> low) & ((Key{1} << (high - low)) - 1)], 1u);
    }
    __syncthreads();
}

// The bin that holds rank `rank`, and the number of values in the bins before it, in `shared` for all threads.
__device__ __forceinline__ void find(const unsigned* bins, int rank, Shared& shared) {
    unsigned own = 0;
    #pragma unroll
    for (int i = 0; i < BINS_PER_THREAD; i++) own += bins[threadIdx.x * BINS_PER_THREAD + i];
    unsigned through = own;
    #pragma unroll
    for (int lanes = 1; lanes < WARP; lanes *= 2) {
        const unsigned other = __shfl_up_sync(ALL_LANES, through, lanes);
        if (threadIdx.x % WARP >= lanes) through += other;
    }
    if (threadIdx.x % WARP == WARP - 1) shared.partial[threadIdx.x / WARP] = through;
    __syncthreads();
    for (int warp = 0; warp < static_cast<int>(threadIdx.x) / WARP; warp++) through += shared.partial[warp];
    int before = static_cast<int>(through - own);
    if (rank >= before && rank < static_cast<int>(through)) {
        int bin = threadIdx.x * BINS_PER_THREAD;
        for (; rank >= before + static_cast<int>(bins[bin]); bin++) before += bins[bin];
        shared.digit = bin;
        shared.before = before;
    }
    __syncthreads();
}

// The key of rank `rank` (from 0) and, where the run's values up to that key end there, the next greater one.
template <class Source>
__device__ __forceinline__ void neighbours(const Source& source, int rows, int rank, bool want_next, Shared& shared,
                                           typename Source::Key& key, typename Source::Key& next) {
    using Key = typename Source::Key;
    int high = 8 * sizeof(Key), left = rank;
    const unsigned* bins = shared.leading;
    key = 0;
    while (true) {
        const int low = high > DIGIT ? high - DIGIT : 0;
        find(bins, left, shared);
        key |= static_cast<Key>(shared.digit) << low;
        left -= shared.before;
        if (low == 0) break;
        high = low;
        bins = shared.bins;
        histogram(source, rows, key, high, high > DIGIT ? high - DIGIT : 0, shared.bins);
    }
    const bool repeats = left + 1 < static_cast<int>(bins[shared.digit]);
    next = key;
    if (repeats || !want_next) {
        __syncthreads();
        return;
    }
    unsigned long long least = Source::NONE;
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        const Key other = source(row);
        if (other > key && other < least) least = other;
    }
    next = static_cast<Key>(reduce<THREADS>(least, Least{}, shared.least));
}

// Quantile of `present` values, interpolated as in numpy.quantile.
template <class Source>
__device__ __forceinline__ double quantile(const Source& source, int rows, int present, double share, Shared& shared) {
    const double position = (present - 1) * share;
    const int below = static_cast<int>(floor(position));
    const double weight = position - below;
    typename Source::Key low_key, high_key;
    neighbours(source, rows, below, below + 1 < present, shared, low_key, high_key);
    const double low = Source::value(low_key), high = Source::value(high_key), gap = high - low;
    return weight >= 0.5 ? high - gap * (1.0 - weight) : low + gap * weight;
}

// Fills the leading histogram and returns how many values there are.
template <class Source> __device__ __forceinline__ int lead(const Source& source, int rows, Shared& shared) {
    constexpr int KEY_BITS = 8 * sizeof(typename Source::Key);
    histogram(source, rows, 0, KEY_BITS, KEY_BITS - DIGIT, shared.leading);
    unsigned own = 0;
    #pragma unroll
    for (int i = 0; i < BINS_PER_THREAD; i++) own += shared.leading[threadIdx.x * BINS_PER_THREAD + i];
    return static_cast<int>(reduce<THREADS>(own, Sum{}, shared.partial));
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) select_quantiles(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, const double* __restrict__ quantiles, long long wanted,
    double* __restrict__ values, unsigned char* __restrict__ bad)
{
    __shared__ Shared shared;
    const Runs runs{begins, ends, eras, columns};
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const Values source{x + run.column * ld + run.begin};
        unsigned infinite = 0;
        for (int row = threadIdx.x; row < run.rows; row += THREADS) {
            const Values::Key key = source(row);
            infinite |= key == Keys<float>::PLUS_INFINITY || key == Keys<float>::MINUS_INFINITY;
        }
        infinite = reduce<THREADS>(infinite, Most{}, shared.partial);
        const int present = lead(source, run.rows, shared);
        for (long long q = 0; q < wanted; q++) {
            const double value = present ? quantile(source, run.rows, present, quantiles[q], shared) : undefined();
            if (threadIdx.x == 0) values[q * runs.count() + run.cell] = value;
        }
        if (threadIdx.x == 0) bad[run.cell] = infinite;
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) select_deviation(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, const double* __restrict__ centre, double* __restrict__ deviation)
{
    __shared__ Shared shared;
    const Runs runs{begins, ends, eras, columns};
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const Deviations source{x + run.column * ld + run.begin, centre[run.cell]};
        const int present = lead(source, run.rows, shared);
        const double value = present ? quantile(source, run.rows, present, 0.5, shared) : undefined();
        if (threadIdx.x == 0) deviation[run.cell] = value;
        __syncthreads();
    }
}
