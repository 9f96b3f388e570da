// Predictions replaced by what a table holds for their tie-kept rank within the era.
//
// Called by cuda/cross_section.py: rank (the table holds (k / 2 - 0.5) / n) and gaussianize (the normal quantiles of
// that), where k, twice the average rank, is 2..2n.
//
// Shapes: p float32 or float64 [M, N], columns `ld` values apart; begins, ends int64 [E]; table float64, of which
// table[table_begins[e] + k] serves era e (table_begins int64 [E]; made on the host, so equal to SciPy's to the bit);
// out float64 [M, N], columns `out_ld` values apart; bad uint8 [E, M], 1 where a run holds NaN or an infinity (its
// results are then void).
// The block sorts the keys of its run in dynamic shared memory or in its own `scratch_places` of `scratch` (0: shared
// memory), then every row finds its key by bisection: no row number travels with a key, and rows are written in order.
// Launch: THREADS threads a block, one run a block at a time, any grid. Exact. Registers: at most 80, no spills.
#include "ranks.cuh"

template <class T>
__device__ __forceinline__ void rank_runs(
    const T* p, long long ld, const Runs& runs, typename Keys<T>::Key* keys, const double* table,
    const long long* table_begins, double* out, long long out_ld, unsigned char* bad)
{
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const T* values = p + run.column * ld + run.begin;
        double* to = out + run.column * out_ld + run.begin;
        const double* results = table + table_begins[run.era];
        sort_run(values, run.rows, keys);
        if (threadIdx.x == 0) bad[run.cell] = !all_finite<T>(keys, run.rows);
        for (int row = threadIdx.x; row < run.rows; row += THREADS)
            to[row] = __ldg(results + twice_rank(keys, run.rows, Keys<T>::of(values[row])));
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) rank_float(
    const float* __restrict__ p, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long models, unsigned* scratch, long long scratch_places, const double* __restrict__ table,
    const long long* __restrict__ table_begins, double* __restrict__ out, long long out_ld,
    unsigned char* __restrict__ bad)
{
    extern __shared__ unsigned dynamic[];
    unsigned* keys = scratch_places ? scratch + blockIdx.x * scratch_places : dynamic;
    rank_runs(p, ld, {begins, ends, eras, models}, keys, table, table_begins, out, out_ld, bad);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) rank_double(
    const double* __restrict__ p, long long ld, const long long* __restrict__ begins,
    const long long* __restrict__ ends, long long eras, long long models, unsigned long long* scratch,
    long long scratch_places, const double* __restrict__ table, const long long* __restrict__ table_begins,
    double* __restrict__ out, long long out_ld, unsigned char* __restrict__ bad)
{
    extern __shared__ unsigned long long wide_dynamic[];
    unsigned long long* keys = scratch_places ? scratch + blockIdx.x * scratch_places : wide_dynamic;
    rank_runs(p, ld, {begins, ends, eras, models}, keys, table, table_begins, out, out_ld, bad);
}
