// Sixteen floats in two vectors of AVX2: what attention_floats.h computes with.

#pragma once

#include "vectors.h"

#define VECTORS __attribute__((target("avx2,fma,f16c")))

typedef struct lanes {
    __m256 low, high;
} lanes;

// Keep two vectors in registers: GCC would rather read them again for each sum they are added to.
#define KEEP(x) __asm__("" : "+x"((x).low), "+x"((x).high))

enum { HALF = LANES / 2, SUMS = 4 };  // SUMS: kept in registers at once

VECTORS static inline lanes lanes_load(const float *from) {
    lanes x = {_mm256_loadu_ps(from), _mm256_loadu_ps(from + HALF)};
    KEEP(x);
    return x;
}

VECTORS static inline void lanes_store(float *to, lanes x) {
    _mm256_storeu_ps(to, x.low);
    _mm256_storeu_ps(to + HALF, x.high);
}

VECTORS static inline lanes lanes_fill(float x) {
    return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

VECTORS static inline lanes lanes_add(lanes x, lanes y) {
    return (lanes){_mm256_add_ps(x.low, y.low), _mm256_add_ps(x.high, y.high)};
}

VECTORS static inline lanes lanes_subtract(lanes x, lanes y) {
    return (lanes){_mm256_sub_ps(x.low, y.low), _mm256_sub_ps(x.high, y.high)};
}

VECTORS static inline lanes lanes_multiply(lanes x, lanes y) {
    return (lanes){_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)};
}

VECTORS static inline lanes lanes_divide(lanes x, lanes y) {
    return (lanes){_mm256_div_ps(x.low, y.low), _mm256_div_ps(x.high, y.high)};
}

// x * y + z
VECTORS static inline lanes lanes_multiply_add(lanes x, lanes y, lanes z) {
    return (lanes){
        _mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}

// the second number where one is NaN
VECTORS static inline lanes lanes_max(lanes x, lanes y) {
    return (lanes){_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)};
}

VECTORS static inline lanes lanes_round(lanes x) {
    return (lanes){_mm256_round_ps(x.low, 8), _mm256_round_ps(x.high, 8)};  // to the nearest
}

VECTORS static inline __m256 shift_half(__m256 x, __m256 whole) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    // with smaller ones the result is 0; NaN stays
    const __m256 is_normal = _mm256_cmp_ps(whole, _mm256_set1_ps(-126), _CMP_NLT_UQ);
    return _mm256_and_ps(_mm256_mul_ps(x, power), is_normal);
}

// x times two to the power of whole numbers that are not positive
VECTORS static inline lanes lanes_shift(lanes x, lanes whole) {
    return (lanes){shift_half(x.low, whole.low), shift_half(x.high, whole.high)};
}

VECTORS static inline lanes lanes_from_halves(const void *from) {
    const __m128i *halves = from;
    return (lanes){
        _mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}

VECTORS static inline bool lanes_differ(lanes x, lanes y) {
    const __m256 low = _mm256_cmp_ps(x.low, y.low, _CMP_NEQ_UQ);
    const __m256 high = _mm256_cmp_ps(x.high, y.high, _CMP_NEQ_UQ);
    return _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0;
}

// `equal` in the lanes where x and y are, else `other`
VECTORS static inline lanes lanes_select(lanes x, lanes y, lanes equal, lanes other) {
    const __m256 low = _mm256_cmp_ps(x.low, y.low, _CMP_EQ_OQ);
    const __m256 high = _mm256_cmp_ps(x.high, y.high, _CMP_EQ_OQ);
    return (lanes){
        _mm256_blendv_ps(other.low, equal.low, low),
        _mm256_blendv_ps(other.high, equal.high, high)};
}

VECTORS static inline void transpose_eight(__m256 r[HALF]) {
    __m256 t[HALF];
    for (int i = 0; i < HALF; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < HALF; i += 4) {  // r[i + j]: columns j and j + 4 of rows i to i + 3
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        const __m256 upper = r[i], lower = r[i + 4];
        r[i] = _mm256_permute2f128_ps(upper, lower, 0x20);
        r[i + 4] = _mm256_permute2f128_ps(upper, lower, 0x31);
    }
}

VECTORS static inline void lanes_transpose(lanes rows[LANES]) {
    __m256 quarters[4][HALF];  // of upper and lower rows: low, high, low, high
    for (int i = 0; i < LANES; i++) {
        quarters[i / HALF * 2][i % HALF] = rows[i].low;
        quarters[i / HALF * 2 + 1][i % HALF] = rows[i].high;
    }
    for (int i = 0; i < 4; i++) transpose_eight(quarters[i]);
    for (int i = 0; i < LANES; i++) {
        rows[i].low = quarters[i / HALF][i % HALF];
        rows[i].high = quarters[i / HALF + 2][i % HALF];
    }
}
