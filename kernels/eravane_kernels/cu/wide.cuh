// Sixteen bytes at a time, wherever they lie, and bytes of four words brought in another order.
#pragma once
#include "runs.cuh"

constexpr int WIDE_BYTES = 16;

// The sixteen bytes that begin `past` bytes into two vectors.
__device__ __forceinline__ uint4 straddling(const uint4& low, const uint4& high, int past) {
    unsigned word[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    if (past & 8) {
        #pragma unroll
        for (int i = 0; i < 6; i++) word[i] = word[i + 2];
    }
    if (past & 4) {
        #pragma unroll
        for (int i = 0; i < 5; i++) word[i] = word[i + 1];
    }
    const unsigned selector = 0x3210u + 0x1111u * (past & 3);
    return make_uint4(__byte_perm(word[0], word[1], selector), __byte_perm(word[1], word[2], selector),
                      __byte_perm(word[2], word[3], selector), __byte_perm(word[3], word[4], selector));
}

// Sixteen values of a column from `place` on, zeros beyond its end. Vectors are read where they lie in the column as a
// whole, two of them where the values straddle them (neighbours share them in L1), and else byte by byte: so nothing
// outside the column is touched.
__device__ __forceinline__ uint4 sixteen(const signed char* column, long long place, long long rows) {
    const unsigned char* values = reinterpret_cast<const unsigned char*>(column) + place;
    const int past = static_cast<int>(reinterpret_cast<unsigned long long>(values) & (WIDE_BYTES - 1));
    const uint4* vector = reinterpret_cast<const uint4*>(values - past);
    if (past == 0 && place + WIDE_BYTES <= rows) return __ldg(vector);
    if (past <= place && place - past + 2 * WIDE_BYTES <= rows)
        return straddling(__ldg(vector), __ldg(vector + 1), past);
    unsigned word[4] = {};
    #pragma unroll
    for (int i = 0; i < WIDE_BYTES; i++)
        if (place + i < rows) word[i / 4] |= static_cast<unsigned>(__ldg(values + i)) << 8 * (i % 4);
    return make_uint4(word[0], word[1], word[2], word[3]);
}

// Four words, those at and beyond `left` zero; as one vector where it can be.
__device__ __forceinline__ uint4 four(const unsigned* words, int left) {
    if (left >= 4 && (reinterpret_cast<unsigned long long>(words) & (WIDE_BYTES - 1)) == 0)
        return __ldg(reinterpret_cast<const uint4*>(words));
    return make_uint4(left > 0 ? __ldg(words) : 0, left > 1 ? __ldg(words + 1) : 0, left > 2 ? __ldg(words + 2) : 0,
                      left > 3 ? __ldg(words + 3) : 0);
}

// Byte j of word i becomes byte i of word j.
__device__ __forceinline__ uint4 transposed(unsigned a, unsigned b, unsigned c, unsigned d) {
    const unsigned first_ab = __byte_perm(a, b, 0x5140), last_ab = __byte_perm(a, b, 0x7362);
    const unsigned first_cd = __byte_perm(c, d, 0x5140), last_cd = __byte_perm(c, d, 0x7362);
    return make_uint4(__byte_perm(first_ab, first_cd, 0x5410), __byte_perm(first_ab, first_cd, 0x7632),
                      __byte_perm(last_ab, last_cd, 0x5410), __byte_perm(last_ab, last_cd, 0x7632));
}
