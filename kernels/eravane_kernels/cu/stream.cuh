// A stretch of memory on its way through shared memory, one stage ahead of the warp that reads it.
//
// From compute capability 9.0 on one lane asks for a stage as a bulk copy, which arrives at a barrier of its own; below
// every lane asks for its own vectors. On the emulator a stage holds nothing until somebody has waited for it.
#pragma once
#include "runs.cuh"

constexpr int STAGES = 2, STAGE_VECTORS = 128, STAGE_BYTES = STAGE_VECTORS * VECTOR_BYTES;

// In shared memory, one a warp.
struct alignas(128) Stages {
    uint4 vector[STAGES][STAGE_VECTORS];
    unsigned long long arrived[STAGES];
};

#if defined(EMULATED)
__device__ __forceinline__ void prepare(unsigned long long* barrier) { emulator::bulk_prepare(barrier); }
__device__ __forceinline__ void ask(unsigned long long* barrier, uint4* to, const uint4* from, int vectors) {
    emulator::bulk_copy(barrier, to, from, vectors * VECTOR_BYTES);
}
__device__ __forceinline__ void await(unsigned long long* barrier, unsigned parity) {
    emulator::bulk_wait(barrier, parity);
}
#elif __CUDA_ARCH__ >= 900
__device__ __forceinline__ unsigned shared_address(const void* at) {
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ void prepare(unsigned long long* barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(shared_address(barrier)) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void ask(unsigned long long* barrier, uint4* to, const uint4* from, int vectors) {
    const unsigned at = shared_address(barrier), bytes = vectors * VECTOR_BYTES;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(at), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(at) : "memory");
}
__device__ __forceinline__ void await(unsigned long long* barrier, unsigned parity) {
    unsigned done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    while (!done);
}
#else
__device__ __forceinline__ void ask_own(uint4* to, const uint4* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "l"(__cvta_generic_to_global(from))
                 : "memory");
}
#endif

// Vectors of one stretch after the other, in order; `vector` may be read where `reach` has been called for it, by the
// lane with the vector's number modulo WARP or, after a warp operation, by any.
class Stream {
public:
    __device__ __forceinline__ Stream(Stages& stages, int lane) : stages_(stages), lane_(lane) {
#if defined(EMULATED) || __CUDA_ARCH__ >= 900
        if (lane == 0)
            for (int stage = 0; stage < STAGES; stage++) prepare(stages.arrived + stage);
        __syncwarp();
#endif
    }
    // Begins a stretch of vectors; all of the last one have been read.
    __device__ __forceinline__ void open(const uint4* source, int vectors) {
        source_ = source;
        vectors_ = vectors;
        base_ += reached_;
        reached_ = 0;
        __syncwarp();
        for (int stage = 0; stage < STAGES; stage++) request(stage);
    }
    // Makes a vector and all before it in its stage readable; those of stages before are no longer.
    __device__ __forceinline__ void reach(int number) {
        while (reached_ <= number / STAGE_VECTORS) {
            if (reached_) {
                __syncwarp();
                request(reached_ - 1 + STAGES);
            }
#if defined(EMULATED) || __CUDA_ARCH__ >= 900
            const unsigned turn = base_ + reached_;
            await(stages_.arrived + turn % STAGES, turn / STAGES & 1);
#else
            asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 1) : "memory");
            __syncwarp();
#endif
            reached_++;
        }
    }
    __device__ __forceinline__ uint4 vector(int number) const {
        return stages_.vector[(base_ + number / STAGE_VECTORS) % STAGES][number % STAGE_VECTORS];
    }

private:
    __device__ __forceinline__ void request(int stage) {
        const int first = stage * STAGE_VECTORS, count = min(STAGE_VECTORS, vectors_ - first);
        uint4* to = stages_.vector[(base_ + stage) % STAGES];
#if defined(EMULATED) || __CUDA_ARCH__ >= 900
        if (count > 0 && lane_ == 0) ask(stages_.arrived + (base_ + stage) % STAGES, to, source_ + first, count);
#else
        for (int i = lane_; i < count; i += WARP) ask_own(to + i, source_ + first + i);
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    }
    Stages& stages_;
    const uint4* source_ = nullptr;
    int lane_, vectors_ = 0, reached_ = 0;   // stages of this stretch that were waited for
    unsigned base_ = 0;                      // and of those before it
};
