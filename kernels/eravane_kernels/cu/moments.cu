// Count, missing, mean, standard deviation (ddof 0), least and greatest value of float columns per (era, column).
//
// Called by cuda/statistics.py (float_moments); a run may be an era or a window of eras, so runs may overlap.
//
// Shapes: x float32 [C, N] with NaN for missing, columns `ld` values apart; begins, ends int64 [E]; results [E, C]:
// int64 count and missing, float64 the others (NaN where a run holds no value); bad uint8 [E, C], 1 where a run holds
// an infinity (its results are then void).
// Launch: THREADS threads a block, one run a block at a time, any grid.
// Exactness: count, missing, least and most exactly; mean and deviation are double sums by row number, whatever the
// alignment, the grid and the other runs: bit-reproducible, within 1e-12 of NumPy's. -0.0 counts as 0.0.
// The reads are 4 bytes a lane, 128 a warp, four in flight: a wider load would tie the order of the sum to the
// address. Registers: at most 64, no spills.
#include "floats.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) float_moments(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, long long* __restrict__ count, long long* __restrict__ missing,
    double* __restrict__ mean, double* __restrict__ deviation, double* __restrict__ least, double* __restrict__ most,
    unsigned char* __restrict__ bad)
{
    __shared__ double partial[THREADS / WARP];
    __shared__ unsigned edge[THREADS / WARP];
    const Runs runs{begins, ends, eras, columns};
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const float* values = x + run.column * ld + run.begin;
        unsigned present = 0, low = Keys<float>::NONE, high = 0;
        double sum = 0.0;
        #pragma unroll 4
        for (int row = threadIdx.x; row < run.rows; row += THREADS) {
            const float value = __ldg(values + row);
            if (is_nan(value)) continue;
            const unsigned key = Keys<float>::of(value);
            present++;
            sum += widen(value);
            low = min(low, key);
            high = max(high, key);
        }
        present = reduce<THREADS>(present, Sum{}, edge);
        sum = reduce<THREADS>(sum, Sum{}, partial);
        low = reduce<THREADS>(low, Least{}, edge);
        high = reduce<THREADS>(high, Most{}, edge);
        const double centre = sum / present;
        double squares = 0.0;
        #pragma unroll 4
        for (int row = threadIdx.x; row < run.rows; row += THREADS) {
            const float value = __ldg(values + row);
            if (is_nan(value)) continue;
            const double gap = widen(value) - centre;
            squares += gap * gap;
        }
        squares = reduce<THREADS>(squares, Sum{}, partial);
        if (threadIdx.x) continue;
        count[run.cell] = present;
        missing[run.cell] = run.rows - static_cast<long long>(present);
        mean[run.cell] = present ? centre : undefined();
        deviation[run.cell] = present ? sqrt(squares / present) : undefined();
        least[run.cell] = present ? Keys<float>::value(low) : undefined();
        most[run.cell] = present ? Keys<float>::value(high) : undefined();
        bad[run.cell] = present && (low == Keys<float>::MINUS_INFINITY || high == Keys<float>::PLUS_INFINITY);
    }
}
