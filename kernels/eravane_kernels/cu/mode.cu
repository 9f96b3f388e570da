// Mode of float columns per (era, column): the most frequent value, the smallest of equally frequent ones.
//
// Called by cuda/statistics.py (float_mode); a run may be an era or a window of eras.
//
// Shapes: x float32 [C, N] with NaN for missing, columns `ld` values apart; begins, ends int64 [E]; mode float64
// [E, C], NaN where a run holds no value; bad uint8 [E, C], 1 where a run holds an infinity. The block sorts its run
// in dynamic shared memory, or, where that is too small, in its own `scratch_places` of `scratch` (0: shared memory).
// Launch: THREADS threads a block, one run a block at a time, any grid. Exact. Registers: at most 64, no spills.
#include "floats.cuh"
#include "reduce.cuh"
#include "sort.cuh"

constexpr int THREADS = 256, BLOCKS_PER_SM = 4;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) float_mode(
    const float* __restrict__ x, long long ld, const long long* __restrict__ begins, const long long* __restrict__ ends,
    long long eras, long long columns, unsigned* scratch, long long scratch_places, double* __restrict__ mode,
    unsigned char* __restrict__ bad)
{
    extern __shared__ unsigned dynamic[];
    __shared__ unsigned long long partial[THREADS / WARP];
    unsigned* keys = scratch_places ? scratch + blockIdx.x * scratch_places : dynamic;
    const Runs runs{begins, ends, eras, columns};
    for (long long number = blockIdx.x; number < runs.count(); number += gridDim.x) {
        const Run run = runs[number];
        const float* values = x + run.column * ld + run.begin;
        const int slots = slots_for(run.rows);
        unsigned long long counted = 0;
        for (int slot = threadIdx.x; slot < slots; slot += THREADS) {
            const bool held = slot < run.rows && !is_nan(values[slot]);
            keys[place(slot)] = held ? Keys<float>::of(values[slot]) : Keys<float>::NONE;
            counted += held;
        }
        const int present = static_cast<int>(reduce<THREADS>(counted, Sum{}, partial));
        sort<THREADS>(keys, slots);
        // Longest first, then smallest: the greatest of (length, complement of the key).
        unsigned long long best = 0;
        for (int slot = threadIdx.x; slot < present; slot += THREADS) {
            const unsigned key = keys[place(slot)];
            if (slot && keys[place(slot - 1)] == key) continue;
            const unsigned long long length = position(keys, slot + 1, present, key, true) - slot;
            best = max(best, length << 32 | ~key);
        }
        best = reduce<THREADS>(best, Most{}, partial);
        if (threadIdx.x == 0) {
            const unsigned least = keys[0], most = keys[place(max(present - 1, 0))];
            mode[run.cell] = present ? Keys<float>::value(~static_cast<unsigned>(best)) : undefined();
            bad[run.cell] = present && (least == Keys<float>::MINUS_INFINITY || most == Keys<float>::PLUS_INFINITY);
        }
        __syncthreads();
    }
}
