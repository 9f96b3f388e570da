// Float32 and float64 values without float32 arithmetic.
//
// CuPy compiles with -ftz=true, which flushes subnormal float32 values in arithmetic, comparisons and conversions. So
// float32 values are looked at as integers here: ordered as keys, widened to double by their bits.
#pragma once

constexpr unsigned SIGN_32 = 0x80000000u, INFINITY_32 = 0x7f800000u;
constexpr unsigned long long SIGN_64 = 0x8000000000000000ull;
constexpr long long INFINITY_64 = 0x7ff0000000000000ll;
constexpr double SMALLEST_NORMAL_32 = 0x1p-126, SUBNORMALS_32 = 0x1p149;

__device__ __forceinline__ double undefined() { return __longlong_as_double(0x7ff8000000000000ll); }

__device__ __forceinline__ bool is_nan(float value) { return (__float_as_uint(value) & ~SIGN_32) > INFINITY_32; }
__device__ __forceinline__ bool is_nan(double value) { return value != value; }

// A float32 as a double. A double with the same exponent field and fraction is smaller by 2^(1023 - 127), also where both
// are subnormal; doubles are never flushed. Infinities and NaN have the largest exponent field in both.
__device__ __forceinline__ double widen(float value) {
    const unsigned bits = __float_as_uint(value), size = bits & ~SIGN_32;
    const long long field = size < INFINITY_32 ? 0 : INFINITY_64;
    const double scaled = __longlong_as_double(static_cast<long long>(size) << 29 | field) * 0x1p896;
    return bits & SIGN_32 ? -scaled : scaled;
}

// A double rounded to float32, to nearest and ties to even.
__device__ __forceinline__ float narrow(double value) {
    if (!(fabs(value) < SMALLEST_NORMAL_32)) return static_cast<float>(value);
    const unsigned size = static_cast<unsigned>(rint(fabs(value) * SUBNORMALS_32));
    return __uint_as_float(__double_as_longlong(value) < 0 ? size | SIGN_32 : size);
}

// Unsigned integers in the order of the numbers they stand for. -0.0 and 0.0 share a key, no number has the key NONE,
// and a NaN's key lies beyond that of an infinity.
template <class T> struct Keys;

template <> struct Keys<float> {
    using Key = unsigned;
    static constexpr Key NONE = 0xffffffffu;
    static constexpr Key PLUS_INFINITY = 0xff800000u, MINUS_INFINITY = ~PLUS_INFINITY;
    __device__ static __forceinline__ Key of(float value) {
        const Key bits = __float_as_uint(value);
        if (bits == SIGN_32) return SIGN_32;
        return bits & SIGN_32 ? ~bits : bits | SIGN_32;
    }
    __device__ static __forceinline__ double value(Key key) {
        return widen(__uint_as_float(key & SIGN_32 ? key ^ SIGN_32 : ~key));
    }
};

template <> struct Keys<double> {
    using Key = unsigned long long;
    static constexpr Key NONE = 0xffffffffffffffffull;
    static constexpr Key PLUS_INFINITY = 0xfff0000000000000ull, MINUS_INFINITY = ~PLUS_INFINITY;
    __device__ static __forceinline__ Key of(double value) {
        const Key bits = static_cast<Key>(__double_as_longlong(value));
        if (bits == SIGN_64) return SIGN_64;
        return bits & SIGN_64 ? ~bits : bits | SIGN_64;
    }
    __device__ static __forceinline__ double value(Key key) {
        return __longlong_as_double(static_cast<long long>(key & SIGN_64 ? key ^ SIGN_64 : ~key));
    }
};
