// Fibers and the scheduler behind cuda_on_cpu.h. x86-64, System V calling convention.
//
// Compiled apart from the kernels: barriers stay opaque to the compiler (no shared value is kept in a register across
// one), and the ThreadSanitizer sees the kernels' memory accesses but not the scheduler's.
#include "cuda_on_cpu.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <sys/mman.h>
#include <vector>

#ifdef EMULATED_TSAN
// Each fiber is a thread of its own to the ThreadSanitizer, and only barriers and warp operations order them: a pair
// of accesses that nothing but the turn-taking keeps apart is reported as a race.
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
constexpr unsigned NO_ORDER = 1;
static void* sanitizer_create() { return __tsan_create_fiber(0); }
static void sanitizer_destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
static void sanitizer_switch(void* fiber) { __tsan_switch_to_fiber(fiber, NO_ORDER); }
static void sanitizer_acquire(void* what) { __tsan_acquire(what); }
static void sanitizer_release(void* what) { __tsan_release(what); }
static void* sanitizer_current() { return __tsan_get_current_fiber(); }
#else
static void* sanitizer_create() { return nullptr; }
static void sanitizer_destroy(void*) {}
static void sanitizer_switch(void*) {}
static void sanitizer_acquire(void*) {}
static void sanitizer_release(void*) {}
static void* sanitizer_current() { return nullptr; }
#endif

namespace emulator {

State state{};

constexpr size_t MAX_THREADS = 1024;
constexpr size_t PAGE = 4096;
constexpr size_t STACK = 64 << 10;
constexpr size_t STACK_STRIDE = PAGE + STACK;   // a guard page below each stack
constexpr size_t STAGGER = 320;                 // stacks that begin at one offset would share their cache sets
constexpr unsigned char POISON = 0xCD;

static struct Scheduler {
    void* stack_pointer;
    void* sanitizer;
    Body body;
    void* argument;
    unsigned alive;
    unsigned phase;                             // barriers that the block has passed
    unsigned waiting;                           // threads at a barrier, all at the one of `place` unless `apart`
    const char* place;
    bool apart;
    // Addresses by which the ThreadSanitizer learns of an order. The two of the barrier take turns: a thread that has
    // run ahead to the next barrier must not come before one that has yet to leave this one.
    char begin_edge, end_edge, barrier_edge[2];
    const char* failure;
    char message[256];
} scheduler;

// Saves where this stack stops, and goes on where the other one did. In line and without a return, so that processors
// predict where it goes: after a call, the return addresses that they remember would be those of the other stack.
static inline __attribute__((always_inline)) void switch_stacks(void** save, void* load) {
    asm volatile("leaq -128(%%rsp), %%rsp\n"    // the red zone
                 "pushq %%rbp\n  pushq %%rbx\n"
                 "leaq 1f(%%rip), %%rax\n  pushq %%rax\n"
                 "movq %%rsp, (%0)\n"
                 "movq %1, %%rsp\n"
                 "popq %%rax\n  jmpq *%%rax\n"
                 "1:\n"
                 "popq %%rbx\n  popq %%rbp\n"
                 "leaq 128(%%rsp), %%rsp\n"
                 : "+D"(save), "+S"(load)
                 :
                 : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
                   "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                   "xmm15", "cc", "memory");
}

static inline void yield() {
    Fiber* fiber = state.current;
    sanitizer_switch(scheduler.sanitizer);
    switch_stacks(&fiber->stack_pointer, scheduler.stack_pointer);
}

static void enter() {
    sanitizer_acquire(&scheduler.begin_edge);
    scheduler.body(scheduler.argument);
    sanitizer_release(&scheduler.end_edge);
    state.current->wait = Wait::done;
    yield();
    std::abort();
}

static void fail(const char* what) {
    const uint3 &block = state.block, &thread = state.current->index;
    std::snprintf(scheduler.message, sizeof scheduler.message, "%s (block %u,%u,%u, thread %u,%u,%u)", what, block.x,
                  block.y, block.z, thread.x, thread.y, thread.z);
    scheduler.failure = scheduler.message;
}

// Ends the launch from within a kernel: the scheduler never returns to this fiber.
static void fail_here(const char* what) {
    fail(what);
    yield();
    std::abort();
}

void barrier(const char* place) {
    if (scheduler.waiting++ == 0) scheduler.place = place;
    scheduler.apart |= place != scheduler.place;
    state.current->wait = Wait::at_barrier;
    char* edge = &scheduler.barrier_edge[scheduler.phase & 1];
    sanitizer_release(edge);
    yield();
    sanitizer_acquire(edge);
}

// The meeting of that mask, or a new one: a lane waits in one or has one to read, so there are never more than lanes.
static Meeting& meeting_of(Warp& warp, unsigned mask) {
    for (Meeting& meeting : warp.meetings)
        if (meeting.arrived && meeting.mask == mask) return meeting;
    const auto is_free = [](const Meeting& meeting) { return !meeting.arrived && !meeting.leaving; };
    Meeting& meeting = *std::find_if(std::begin(warp.meetings), std::end(warp.meetings), is_free);
    meeting.mask = mask;
    return meeting;
}

// Lets every lane go on.
static void part(Warp& warp, Meeting& meeting) {
    sanitizer_acquire(&meeting);
    for (unsigned left = meeting.mask; left; left &= left - 1) {
        Fiber& fiber = *warp.fibers[__builtin_ctz(left)];
        fiber.wait = Wait::runnable;
        sanitizer_release(&fiber);
    }
    meeting.arrived = 0;
    meeting.leaving = meeting.mask;
}

const uint64_t* exchange(unsigned mask, uint64_t value) {
    Fiber* fiber = state.current;
    if (!(mask >> fiber->lane & 1)) fail_here("a lane is not in the warp mask it passes");
    Meeting& meeting = meeting_of(*fiber->warp, mask);
    meeting.brought[fiber->lane] = value;
    meeting.arrived |= 1u << fiber->lane;
    sanitizer_release(&meeting);
    if (meeting.arrived == mask) {
        part(*fiber->warp, meeting);
    } else {
        fiber->wait = Wait::at_warp;
        yield();
    }
    sanitizer_acquire(fiber);
    meeting.leaving &= ~(1u << fiber->lane);
    return meeting.brought;
}

static std::map<const void*, Copy> copies;

void new_copies_at(const void* barrier) { copies[barrier] = Copy{}; showed(barrier); }

Copy& copy_at(const void* barrier) {
    const auto found = copies.find(barrier);
    if (found == copies.end()) fail_here("a barrier of bulk copies that was never prepared");
    return found->second;
}

bool wait_turn(const void*, bool waiting) {
    if (!waiting) fail_here("a bulk copy that nobody has asked for");
    yield();
    return true;
}

void saw(const void* barrier) { sanitizer_acquire(const_cast<void*>(barrier)); }
void showed(const void* barrier) { sanitizer_release(const_cast<void*>(barrier)); }
void refuse(const char* what) { fail_here(what); }

// Turns of one block or of the blocks: 0 ascending, 1 descending, else shuffled from that seed.
class Turns {
public:
    Turns(size_t count, int order) : turns_(count), order_(order), random_(88172645463325252ull + order) {
        std::iota(turns_.begin(), turns_.end(), size_t{0});
        if (order == 1) std::reverse(turns_.begin(), turns_.end());
    }
    const std::vector<size_t>& next() {
        if (order_ > 1)
            for (size_t i = turns_.size(); i-- > 1;) std::swap(turns_[i], turns_[(draw() >> 32) * (i + 1) >> 32]);
        return turns_;
    }

private:
    uint64_t draw() {   // Marsaglia's xorshift64
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        return random_ ^= random_ << 17;
    }
    std::vector<size_t> turns_;
    int order_;
    uint64_t random_;
};

// The stacks of all threads, of which at least `count` have their guard pages: each is a mapping, and a process with
// many of these libraries in it would come near the 65,530 that Linux allows.
static char* stacks(size_t count = 0) {
    static char* memory = [] {
        void* pages = mmap(nullptr, STACK_STRIDE * MAX_THREADS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED) return static_cast<char*>(nullptr);
        return static_cast<char*>(pages);
    }();
    static size_t guarded = 0;
    for (; memory && guarded < count; guarded++) mprotect(memory + guarded * STACK_STRIDE, PAGE, PROT_NONE);
    return memory;
}

static void start(Fiber& fiber, size_t number, Warp* warps) {
    const dim3& size = state.threads;
    const unsigned i = static_cast<unsigned>(number);
    fiber.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    fiber.lane = i % WARP;
    fiber.warp = &warps[i / WARP];
    fiber.warp->fibers[fiber.lane] = &fiber;
    fiber.wait = Wait::runnable;
    char* top = stacks() + STACK_STRIDE * (number + 1) - STAGGER * (number % 8);
    void** frame = reinterpret_cast<void**>(top) - 2;   // leaves the stack aligned as after a call
    frame[0] = reinterpret_cast<void*>(enter);
    frame[1] = nullptr;
    fiber.stack_pointer = frame;
}

static bool resume(Fiber& fiber) {
    if (fiber.wait != Wait::runnable) return false;
    state.current = &fiber;
    sanitizer_switch(fiber.sanitizer);
    switch_stacks(&scheduler.stack_pointer, fiber.stack_pointer);
    if (fiber.wait == Wait::done) scheduler.alive--;
    return true;
}

// Opens the barrier when all living threads wait at it.
static bool open_barrier(std::vector<Fiber>& fibers) {
    if (!scheduler.waiting || scheduler.waiting != scheduler.alive) return false;
    scheduler.phase++;
    scheduler.waiting = 0;
    for (Fiber& fiber : fibers)
        if (fiber.wait == Wait::at_barrier) fiber.wait = Wait::runnable;
    return true;
}

static void run_block(std::vector<Fiber>& fibers, std::vector<Warp>& warps, int order) {
    std::fill(warps.begin(), warps.end(), Warp{});
    copies.clear();
    for (size_t i = 0; i < fibers.size(); i++) start(fibers[i], i, warps.data());
    scheduler.alive = static_cast<unsigned>(fibers.size());
    scheduler.waiting = 0;
    scheduler.apart = false;
    sanitizer_release(&scheduler.begin_edge);
    Turns turns(fibers.size(), order);
    while (scheduler.alive && !scheduler.failure) {
        bool progress = false;
        for (size_t i : turns.next()) {
            progress |= resume(fibers[i]);
            if (scheduler.failure) break;
        }
        if (scheduler.failure || !scheduler.alive) break;
        if (scheduler.apart) fail("threads wait at different __syncthreads()");
        else if (!open_barrier(fibers) && !progress) fail("a barrier or a warp mask that not all threads reach");
    }
    sanitizer_acquire(&scheduler.end_edge);
}

struct Shared {
    void* variable;
    size_t bytes;
};
static std::vector<Shared> shared_variables;

static void poison(const Shared& shared) {
#ifdef EMULATED_TSAN
    // Byte by byte, since the ThreadSanitizer would take a memset for a write by the thread that comes here first.
    volatile unsigned char* bytes = static_cast<unsigned char*>(shared.variable);
    for (size_t i = 0; i < shared.bytes; i++) bytes[i] = POISON;
#else
    std::memset(shared.variable, POISON, shared.bytes);
#endif
}

void share(void* variable, size_t bytes) {
    for (const Shared& known : shared_variables)
        if (known.variable == variable) return;
    shared_variables.push_back({variable, bytes});
    poison(shared_variables.back());
}

static uint3 unravel(size_t i, const dim3& size) {
    return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
            static_cast<unsigned>(i / (size_t{size.x} * size.y))};
}

const char* run(dim3 grid, dim3 threads, size_t dynamic_shared, int order, Body body, void* argument) {
    const size_t count = size_t{threads.x} * threads.y * threads.z;
    if (!stacks(count)) return "no memory for the stacks of the threads";
    std::vector<Fiber> fibers(count);
    std::vector<Warp> warps((count + WARP - 1) / WARP);
    // Exactly the bytes asked for, so that the AddressSanitizer sees the first one beyond.
    void* dynamic = nullptr;
    if (dynamic_shared && posix_memalign(&dynamic, 128, dynamic_shared)) return "no memory for dynamic shared memory";
    state.grid = grid;
    state.threads = threads;
    state.dynamic_shared = dynamic;
    scheduler.body = body;
    scheduler.argument = argument;
    scheduler.failure = nullptr;
    scheduler.sanitizer = sanitizer_current();
    for (Fiber& fiber : fibers) fiber.sanitizer = sanitizer_create();
    Turns blocks(size_t{grid.x} * grid.y * grid.z, order);
    for (size_t i : blocks.next()) {
        state.block = unravel(i, grid);
        if (dynamic) std::memset(dynamic, POISON, dynamic_shared);
        for (const Shared& shared : shared_variables) poison(shared);
        run_block(fibers, warps, order);
        if (scheduler.failure) break;
    }
    for (Fiber& fiber : fibers) sanitizer_destroy(fiber.sanitizer);
    std::free(dynamic);
    return scheduler.failure;
}

}  // namespace emulator
