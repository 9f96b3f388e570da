// Numerai's CORR of M predictions in E eras: gaussianised ranks and centred labels, both to the power 1.5 with sign
// kept, then Pearson's correlation.
//
// Called by cuda/cross_section.py (numerai_corr), which leaves rows with an unknown label out before.
//
// Shapes: p float32 or float64 [M, N], columns `ld` values apart; begins, ends int64 [E]; table float64, of which
// table[table_begins[e] + k] is the gaussianised power of twice the average rank k, 2..2n, in era e; label float64 [N]
// and squares float64 [E]: centred powers of the labels and the sum of their squares (NaN where labels are constant or
// absent; both made on the host, as numerai-tools rounds them); corr float64 [M, E], NaN for a constant prediction or
// label; bad uint8 [E, M], 1 where a run of p holds NaN or an infinity (its result is then void).
// The block sorts the keys of its run in dynamic shared memory or in its own `scratch_places` of `scratch` (0: shared
// memory), then every row finds its key by bisection and adds to three sums.
// Launch: THREADS threads a block, one run a block at a time, any grid.
// Exactness: ranks and table exactly; sums in double by row number: bit-reproducible, within 1e-12 of NumPy's.
// Registers: at most 80, no spills.
#include "ranks.cuh"

template <class T>
__device__ __forceinline__ void correlate_runs(
    const T* p, long long ld, const Runs& runs, typename Keys<T>::Key* keys, const double* table,
    const long long* table_begins, const double* label, const double* squares, double* corr, unsigned char* bad,
    double* partial)
{
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const T* values = p + run.column * ld + run.begin;
        const double* powers = table + table_begins[run.era];
        sort_run(values, run.rows, keys);
        const bool differ = run.rows && keys[0] != keys[place(run.rows - 1)], finite = all_finite<T>(keys, run.rows);
        double sum = 0.0, square_sum = 0.0, product_sum = 0.0;
        for (int row = threadIdx.x; row < run.rows; row += THREADS) {
            const double power = __ldg(powers + twice_rank(keys, run.rows, Keys<T>::of(values[row])));
            sum += power;
            square_sum += power * power;
            product_sum += power * __ldg(label + run.begin + row);
        }
        sum = reduce<THREADS>(sum, Sum{}, partial);
        square_sum = reduce<THREADS>(square_sum, Sum{}, partial);
        product_sum = reduce<THREADS>(product_sum, Sum{}, partial);
        if (threadIdx.x) continue;
        const double variation = (square_sum - sum * sum / run.rows) * squares[run.era];
        corr[run.column * runs.eras + run.era] = differ ? product_sum / sqrt(variation) : undefined();
        bad[run.cell] = !finite;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) numerai_corr_float(
    const float* __restrict__ p, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long models, unsigned* scratch, long long scratch_places, const double* __restrict__ table,
    const long long* __restrict__ table_begins, const double* __restrict__ label, const double* __restrict__ squares,
    double* __restrict__ corr, unsigned char* __restrict__ bad)
{
    extern __shared__ unsigned dynamic[];
    __shared__ double partial[THREADS / WARP];
    unsigned* keys = scratch_places ? scratch + blockIdx.x * scratch_places : dynamic;
    const Runs runs{begins, ends, eras, models};
    correlate_runs(p, ld, runs, keys, table, table_begins, label, squares, corr, bad, partial);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) numerai_corr_double(
    const double* __restrict__ p, long long ld, const long long* __restrict__ begins,
    const long long* __restrict__ ends, long long eras, long long models, unsigned long long* scratch,
    long long scratch_places, const double* __restrict__ table, const long long* __restrict__ table_begins,
    const double* __restrict__ label, const double* __restrict__ squares, double* __restrict__ corr,
    unsigned char* __restrict__ bad)
{
    extern __shared__ unsigned long long wide_dynamic[];
    __shared__ double partial[THREADS / WARP];
    unsigned long long* keys = scratch_places ? scratch + blockIdx.x * scratch_places : wide_dynamic;
    const Runs runs{begins, ends, eras, models};
    correlate_runs(p, ld, runs, keys, table, table_begins, label, squares, corr, bad, partial);
}
