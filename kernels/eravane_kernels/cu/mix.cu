// Weighted sums of models' gaussianised predictions in one era, rounded, for several sets of weights.
//
// Called by cuda/mixing.py (mix). As spec/mixing.py, but for the order of summation, which rounding hides: models are
// added one after the other, so that rows with equal values tie.
//
// Bound: 8 bytes read of every cell with weight and written of every result; 60 models of 5,567 rows are 2.7 MB, under
// 2 us at 4.3 TB/s, so that the launch binds.
//
// Shapes: z float64 [M, N], columns `ld` values apart; weight float64 [K, M]; out float64 [K, N], columns `out_ld` values
// apart. A model whose weight is not above 0 is not read.
// Launch: THREADS threads a block, a thread a row, any grid of x; a set of weights a y, any grid of y.
// Registers: at most 40, no spills, no shared memory.
constexpr int THREADS = 256, BLOCKS_PER_SM = 6;
constexpr double STEPS = 1e12;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) mix_rows(
    const double* __restrict__ z, long long ld, long long rows, long long models, const double* __restrict__ weight,
    long long sets, double* __restrict__ out, long long out_ld)
{
    for (long long set = blockIdx.y; set < sets; set += gridDim.y)
        for (long long row = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; row < rows;
             row += static_cast<long long>(gridDim.x) * THREADS) {
            double sum = 0.0;
            for (long long model = 0; model < models; model++) {
                const double share = __ldg(weight + set * models + model);
                if (share > 0.0) sum += share * __ldg(z + model * ld + row);
            }
            out[set * out_ld + row] = rint(sum * STEPS) / STEPS;
        }
}
