"""The emulator does what CUDA documents, and refuses what a GPU would refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.emulator import EmulatorError, RawModule, compiler_missing
from tests.support.emulator.arrays import DeviceNumpy

pytestmark = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())

SOURCE = """
extern "C" __global__ void indices(int* out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}
extern "C" __global__ void shuffles(const double* in, double* out) {
    const int lane = threadIdx.x % 32;
    const double value = in[threadIdx.x];
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, 5);
    out[64 + threadIdx.x] = __shfl_up_sync(0xffffffffu, value, 3);
    out[128 + threadIdx.x] = __shfl_sync(0xffffffffu, value, 7);
    if (lane < 8) out[192 + threadIdx.x] = __shfl_xor_sync(0x000000ffu, value, 1);
    __syncwarp();
}
extern "C" __global__ void votes(const int* in, unsigned* out) {
    const unsigned ballot = __ballot_sync(0xffffffffu, in[threadIdx.x] > 2);
    const int any = __any_sync(0xffffffffu, in[threadIdx.x] > 100);
    const unsigned sum = __reduce_add_sync(0xffffffffu, static_cast<unsigned>(in[threadIdx.x]));
    if (threadIdx.x % 32 == 0) {
        out[3 * (threadIdx.x / 32)] = ballot;
        out[3 * (threadIdx.x / 32) + 1] = any;
        out[3 * (threadIdx.x / 32) + 2] = sum;
    }
}
extern "C" __global__ void words(const unsigned* in, unsigned* out) {
    out[0] = __byte_perm(in[0], in[1], 0x7250);
    out[1] = __dp4a(in[0], in[1], 10u);
    out[2] = __clz(static_cast<int>(in[2]));
    out[3] = __clz(0);
    out[4] = __float_as_uint(1.0f);
    out[5] = atomicAdd(&out[6], 5u);
    out[7] = __dp4a(static_cast<int>(in[0]), static_cast<int>(in[1]), -10);
}
extern "C" __global__ void leftovers(unsigned char* out) {
    __shared__ unsigned char still[4];
    extern __shared__ unsigned char moving[];
    out[2 * blockIdx.x] = still[3];
    out[2 * blockIdx.x + 1] = moving[blockDim.x - 1];
    __syncthreads();
    still[3] = moving[blockDim.x - 1] = 7;
}
struct Pair { int first[2]; double second; };
template <class T, int N> __device__ void in_template(unsigned char* out) {
    __shared__ T table[N / 2][2 * (N > 1)], one;
    __shared__ Pair pair;
    const auto within = [&] {
        alignas(16) __shared__ unsigned char deep[3];
        const unsigned char found = deep[threadIdx.x];
        __syncthreads();
        return deep[threadIdx.x] = 7, found;
    };
    const auto byte = [&](const void* what, int i) { return static_cast<const unsigned char*>(what)[i]; };
    out[0] = within();
    out[1] = byte(table, sizeof table - 1);
    out[2] = byte(&one, 0);
    out[3] = byte(&pair, sizeof pair - 1);
    __syncthreads();
    table[N / 2 - 1][1] = one = 1;
    pair = {{1, 1}, 1.0};
}
extern "C" __global__ void everywhere(unsigned char* out) {
    __shared__ unsigned char plain, other[2];
    out += 10 * blockIdx.x;
    in_template<int, 2>(out);
    in_template<double, 4>(out + 4);
    out[8] = plain;
    out[9] = other[1];
    __syncthreads();
    plain = other[1] = 7;
}
extern "C" __global__ void reversed(const int* in, int* out) {
    extern __shared__ int held[];
    held[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void turns(int* order, int* next) { order[(*next)++] = blockIdx.x * blockDim.x + threadIdx.x; }
extern "C" __global__ void leaves(int* out) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers() {
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads();
}
extern "C" __global__ void half_a_warp() { if (threadIdx.x < 16) __syncwarp(); }
extern "C" __global__ void two_masks() { __syncwarp(threadIdx.x < 16 ? 0x0001ffffu : 0xffffffffu); }
constexpr int MOST = 64;
extern "C" __global__ void __launch_bounds__(MOST, 2) bounded(float scale, long long count, const signed char* in) {}
"""


@pytest.fixture(scope="module", params=[0, 1, 7])
def kernel(request):
    return RawModule(SOURCE, order=request.param).get_function


def test_grid_and_block_have_three_axes(kernel):
    out = np.zeros(3 * 2 * 2 * 24, np.int32)
    kernel("indices")((3, 2, 2), (4, 3, 2), (out,))
    assert out.tolist() == [block * 1000 + thread for block in range(12) for thread in range(24)]


def test_shuffles(kernel):
    values = np.random.default_rng(0).normal(size=64)
    out = np.zeros(256)
    kernel("shuffles")((1,), (64,), (values, out))
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    np.testing.assert_array_equal(out[:64], values[warp + (lane ^ 5)])
    np.testing.assert_array_equal(out[64:128], values[warp + np.where(lane >= 3, lane - 3, lane)])
    np.testing.assert_array_equal(out[128:192], values[warp + 7])
    np.testing.assert_array_equal(out[192:], np.where(lane < 8, values[warp + (lane ^ 1)], 0.0))


def test_votes_and_reductions(kernel):
    values = np.random.default_rng(1).integers(0, 6, 64).astype(np.int32)
    out = np.zeros(6, np.uint32)
    kernel("votes")((1,), (64,), (values, out))
    for warp in range(2):
        part = values[warp * 32 : warp * 32 + 32]
        ballot = sum(1 << lane for lane in range(32) if part[lane] > 2)
        assert out[3 * warp : 3 * warp + 3].tolist() == [ballot, 0, part.sum()]


def test_words(kernel):
    values, out = np.array([0x04030201, 0xF8F7F605, 0x00000100], np.uint32), np.zeros(8, np.uint32)
    kernel("words")((1,), (1,), (values, out))
    sum_of_products = 10 + 1 * 0x05 + 2 * 0xF6 + 3 * 0xF7 + 4 * 0xF8
    signed = -10 + 1 * 0x05 + 2 * (0xF6 - 256) + 3 * (0xF7 - 256) + 4 * (0xF8 - 256)
    assert out.tolist() == [0xF803F601, sum_of_products, 23, 32, 0x3F800000, 0, 5, signed + 2**32]


def test_shared_memory_is_poisoned_before_every_block(kernel):
    out = np.zeros(6, np.uint8)
    kernel("leftovers")((3,), (1,), (out,), shared_mem=5)
    assert out.tolist() == [0xCD] * 6


def test_shared_memory_of_functions_templates_and_lambdas_is_poisoned(kernel):
    out = np.zeros(30, np.uint8)
    kernel("everywhere")((3,), (1,), (out,))
    assert out.tolist() == [0xCD] * 30


def test_dynamic_shared_memory_and_a_barrier(kernel):
    values = np.arange(512, dtype=np.int32)
    out = np.zeros_like(values)
    kernel("reversed")((2,), (256,), (values, out), shared_mem=1024)
    np.testing.assert_array_equal(out.reshape(2, 256), values.reshape(2, 256)[:, ::-1])


@pytest.mark.parametrize("order", [0, 1, 5, 6])
def test_threads_and_blocks_take_turns(order):
    turns, count = np.zeros(96, np.int32), np.zeros(1, np.int32)
    RawModule(SOURCE, order=order).get_function("turns")((3,), (32,), (turns, count))
    assert sorted(turns) == list(range(96))
    assert (turns.tolist() == list(range(96))) == (order == 0)
    assert (turns.tolist() == list(range(96))[::-1]) == (order == 1)


def test_threads_that_have_returned_are_not_waited_for(kernel):
    out = np.zeros(64, np.int32)
    kernel("leaves")((1,), (64,), (out,))
    assert out.sum() == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_barriers", "different __syncthreads"),
        ("half_a_warp", "not all threads reach"),
        ("two_masks", "not all threads reach"),
    ],
)
def test_threads_that_never_meet(kernel, name, message):
    with pytest.raises(EmulatorError, match=message):
        kernel(name)((1,), (64,), ())


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1,), (65,), 0, "65 threads a block, allowed are 1 to 64"),
        ((0,), (64,), 0, "grid"),
        ((1, 65536), (64,), 0, "grid"),
        ((1,), (64,), 49153, "49153 bytes of shared memory, allowed are 49152"),
    ],
)
def test_launches_that_a_gpu_refuses(kernel, grid, block, shared, message):
    arguments = (np.float32(1), np.int64(2), np.zeros(1, np.int8))
    with pytest.raises(EmulatorError, match=message):
        kernel("bounded")(grid, block, arguments, shared_mem=shared)


@pytest.mark.parametrize(
    "arguments",
    [
        (np.float32(1), np.int64(2)),
        (np.float64(1), np.int64(2), np.zeros(1, np.int8)),
        (np.float32(1), 2, np.zeros(1, np.int8)),
        (np.float32(1), np.int64(2), np.zeros(1, np.uint8)),
        (np.float32(1), np.zeros(1, np.int64), np.zeros(1, np.int8)),
    ],
)
def test_arguments_of_another_type_than_the_parameter(kernel, arguments):
    with pytest.raises(EmulatorError, match="bounded"):
        kernel("bounded")((1,), (64,), arguments)


def test_more_shared_memory_after_opting_in(kernel):
    bounded = kernel("bounded")
    bounded.max_dynamic_shared_size_bytes = 100_000
    bounded((1,), (64,), (np.float32(1), np.int64(2), np.zeros(1, np.int8)), shared_mem=100_000)


def test_a_missing_compiler_is_a_reason():
    done = subprocess.run(
        [sys.executable, "-c", "from emulator import compiler_missing; print(compiler_missing())"],
        cwd=Path(__file__).parents[1] / "support",  # where the package lies
        env={**os.environ, "CXX": "no-such-compiler -O3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "CXX is no-such-compiler -O3, which is not installed"


def test_source_that_does_not_compile_is_named():
    with pytest.raises(RuntimeError, match=r"broken\.cu:2"):
        RawModule(
            '#line 1 "broken.cu"\nextern "C" __global__ void fine() {}\nextern "C" __global__ void broken() { no; }'
        )


def test_device_arrays_keep_apart_from_host_arrays():
    xp = DeviceNumpy()
    device, host = xp.asarray(np.arange(4.0)), np.arange(4.0)
    for mixed in (
        lambda: device + host,
        lambda: host + device,
        lambda: xp.where(device > 1, host, 0.0),
        lambda: device[np.array([0, 1])],
        lambda: device.__setitem__(slice(None), host),
    ):
        with pytest.raises(TypeError, match="of the host"):
            mixed()
    assert type(device.sum()) is type(device)
    np.testing.assert_array_equal(xp.where(device > 1, device, 0.0).get(), [0, 0, 2, 3])
    assert xp.empty(3, np.uint8).get().tolist() == [0xCD] * 3
