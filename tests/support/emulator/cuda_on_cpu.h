// The part of CUDA C++ that the kernels use, for a host compiler: with this before it, a .cu file runs on the CPU.
//
// Every CUDA thread is a fiber (its own stack, switched by hand), the threads of a block take turns on one operating
// system thread, and blocks follow one another. A thread runs until it reaches a barrier or a warp operation; there it
// waits until all the others that must come have come. runtime.cpp holds that machinery and its checks.
//
// Bulk copies arrive when somebody waits for them, and leave poison where they go until then.
//
// Not emulated: the speed, occupancy and memory ordering of a GPU, inline PTX, tensor cores, CUB.
#pragma once
#define EMULATED 1
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// ---- language -----------------------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
// One block is resident at a time, so shared memory is static storage. The loader adds `emulator::share(name);` to every
// declaration, by which the runtime learns what to poison. (A section of its own would say it to the linker, but g++ 13
// and newer refuse one section for variables of functions and of templates.)
#define __shared__ static
// The loader rewrites `extern __shared__ T name[];` to this.
#define EMULATED_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emulator::state.dynamic_shared)
#define EMULATED_EXPORT extern "C" __attribute__((visibility("default")))

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- runtime ------------------------------------------------------------------------------------------------------
namespace emulator {

constexpr unsigned WARP = 32;

enum class Wait : unsigned char { runnable, at_barrier, at_warp, done };

struct Warp;
struct Fiber {
    void* stack_pointer;
    uint3 index;
    unsigned lane;
    Warp* warp;
    Wait wait;
    void* sanitizer;              // the ThreadSanitizer's name of this fiber
};

// Lanes that meet in a warp operation, known by the mask they pass; those of another mask meet apart. Once all have
// come, `leaving` are those that have yet to read what was brought.
struct Meeting {
    unsigned mask, arrived, leaving;
    uint64_t brought[WARP];
};
struct Warp {
    Fiber* fibers[WARP];
    Meeting meetings[WARP];
};

struct State {
    Fiber* current;
    uint3 block;
    dim3 grid, threads;
    void* dynamic_shared;
};
extern State state;

using Body = void (*)(void*);
// Runs a grid; nullptr on success, else what went wrong.
const char* run(dim3 grid, dim3 threads, size_t dynamic_shared, int order, Body body, void* argument);
// Notes static shared memory, and poisons it where it is new.
void share(void* variable, size_t bytes);
template <class T> void share(T& variable) { share(&variable, sizeof variable); }
void barrier(const char* place);
// What the lanes of the mask bring; to be read before the next barrier or warp operation.
const uint64_t* exchange(unsigned mask, uint64_t value);

// A copy into shared memory that is under way, known by the barrier it arrives at.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    size_t bytes;
    bool pending;
    unsigned arrived;             // copies that have arrived there
};
Copy& copy_at(const void* barrier);                    // made by bulk_prepare; a launch fails for another barrier
void new_copies_at(const void* barrier);
bool wait_turn(const void* barrier, bool waiting);     // lets others run; false when nobody can bring it about
void saw(const void* barrier);
void showed(const void* barrier);
void refuse(const char* what);

template <class T> uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "warp operations move up to 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T> T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class To, class From> To reinterpret(From value) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    return from_bits<To>(to_bits(value));
}

// One letter per kernel parameter, as NumPy's type characters, with P before what is pointed at.
template <class T> struct Letter;
template <> struct Letter<signed char> { static constexpr char value = 'b'; };
template <> struct Letter<unsigned char> { static constexpr char value = 'B'; };
template <> struct Letter<int> { static constexpr char value = 'i'; };
template <> struct Letter<unsigned> { static constexpr char value = 'I'; };
template <> struct Letter<long long> { static constexpr char value = 'q'; };
template <> struct Letter<unsigned long long> { static constexpr char value = 'Q'; };
template <> struct Letter<float> { static constexpr char value = 'f'; };
template <> struct Letter<double> { static constexpr char value = 'd'; };

template <class T> void describe(char*& out) {
    if constexpr (std::is_pointer_v<T>) {
        *out++ = 'P';
        *out++ = Letter<std::remove_cv_t<std::remove_pointer_t<T>>>::value;
    } else {
        *out++ = Letter<std::remove_cv_t<T>>::value;
    }
}
template <class... A> void signature(void (*)(A...), char* out) {
    (describe<A>(out), ...);
    *out = '\0';
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void** arguments;
    template <size_t... I> void operator()(std::index_sequence<I...>) const {
        kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    static void body(void* self) { (*static_cast<Call*>(self))(std::index_sequence_for<A...>{}); }
};
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* threads, size_t dynamic_shared,
                   int order, void** arguments) {
    Call<A...> call{kernel, arguments};
    return run({grid[0], grid[1], grid[2]}, {threads[0], threads[1], threads[2]}, dynamic_shared, order,
               &Call<A...>::body, &call);
}

}  // namespace emulator

// ---- built-in variables -------------------------------------------------------------------------------------------
#define threadIdx (emulator::state.current->index)
#define blockIdx (emulator::state.block)
#define blockDim (emulator::state.threads)
#define gridDim (emulator::state.grid)
#define warpSize 32

// ---- barriers and warp operations ---------------------------------------------------------------------------------
// A barrier is known by its place in the source (the address of a byte made there), since a compiler may duplicate or
// merge calls.
#define __syncthreads()              \
    [] {                             \
        static char place;           \
        emulator::barrier(&place);   \
    }()
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::exchange(mask, 0); }

template <class T> T __shfl_sync(unsigned mask, T value, int lane) {
    return emulator::from_bits<T>(emulator::exchange(mask, emulator::to_bits(value))[lane & 31]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return __shfl_sync(mask, value, static_cast<int>(emulator::state.current->lane) ^ lanes);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned lanes) {
    const unsigned lane = emulator::state.current->lane;
    const uint64_t* slot = emulator::exchange(mask, emulator::to_bits(value));
    return lane >= lanes ? emulator::from_bits<T>(slot[lane - lanes]) : value;
}
template <class T> T __reduce_add_sync(unsigned mask, T value) {
    const uint64_t* slot = emulator::exchange(mask, emulator::to_bits(value));
    T sum = 0;
    for (unsigned lane = 0; lane < emulator::WARP; lane++)
        if (mask >> lane & 1) sum += emulator::from_bits<T>(slot[lane]);
    return sum;
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const uint64_t* slot = emulator::exchange(mask, predicate != 0);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < emulator::WARP; lane++)
        if (mask >> lane & 1) votes |= static_cast<unsigned>(slot[lane]) << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// ---- memory -------------------------------------------------------------------------------------------------------
template <class T> T __ldg(const T* address) { return *address; }
template <class T> T atomicAdd(T* address, T value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }
template <class T> T atomicOr(T* address, T value) { return __atomic_fetch_or(address, value, __ATOMIC_RELAXED); }

// ---- bits and numbers ---------------------------------------------------------------------------------------------
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
    for (unsigned shift = 0; shift < 32; shift += 8) sum += (a >> shift & 255) * (b >> shift & 255);
    return sum;
}
inline int __dp4a(int a, int b, int sum) {
    for (unsigned shift = 0; shift < 32; shift += 8)
        sum += static_cast<signed char>(a >> shift) * static_cast<signed char>(b >> shift);
    return sum;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline unsigned __float_as_uint(float value) { return emulator::reinterpret<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return emulator::reinterpret<float>(value); }
inline long long __double_as_longlong(double value) { return emulator::reinterpret<long long>(value); }
inline double __longlong_as_double(long long value) { return emulator::reinterpret<double>(value); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
    unsigned result = 0;
    for (unsigned byte = 0; byte < 4; byte++)
        result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * byte & 7) & 255) << 8 * byte;
    return result;
}
using std::max;
using std::min;

// ---- bulk copies --------------------------------------------------------------------------------------------------
namespace emulator {
inline void bulk_prepare(void* barrier) { new_copies_at(barrier); }
inline void bulk_copy(void* barrier, void* to, const void* from, size_t bytes) {
    Copy& copy = copy_at(barrier);
    if (copy.pending) refuse("a bulk copy is asked for at a barrier where another is under way");
    if (bytes == 0 || (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) % 16)
        refuse("a bulk copy takes whole vectors of 16 bytes, aligned to them");
    copy = {static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, true, copy.arrived};
    for (size_t i = 0; i < bytes; i++) copy.to[i] = 0xCD;
    showed(barrier);
}
inline void bulk_wait(void* barrier, unsigned parity) {
    for (unsigned turns = 0;; turns++) {
        Copy& copy = copy_at(barrier);
        saw(barrier);
        if (copy.pending && (copy.arrived & 1) == parity) {
            for (size_t i = 0; i < copy.bytes; i++) copy.to[i] = copy.from[i];
            copy.pending = false;
            copy.arrived++;
            showed(barrier);
        }
        if ((copy.arrived & 1) != parity) return;
        if (!wait_turn(barrier, turns < 100000)) return;
    }
}
}  // namespace emulator
