// Sixteen floats in a vector of AVX-512: what attention_floats.h computes with.

#pragma once

#include "vectors.h"

#define VECTORS AVX512

typedef __m512 lanes;

enum { SUMS = 16 };  // kept in registers at once

AVX512 static inline lanes lanes_load(const float *from) { return _mm512_loadu_ps(from); }

AVX512 static inline void lanes_store(float *to, lanes x) { _mm512_storeu_ps(to, x); }

AVX512 static inline lanes lanes_fill(float x) { return _mm512_set1_ps(x); }

AVX512 static inline lanes lanes_add(lanes x, lanes y) { return _mm512_add_ps(x, y); }

AVX512 static inline lanes lanes_subtract(lanes x, lanes y) { return _mm512_sub_ps(x, y); }

AVX512 static inline lanes lanes_multiply(lanes x, lanes y) { return _mm512_mul_ps(x, y); }

AVX512 static inline lanes lanes_divide(lanes x, lanes y) { return _mm512_div_ps(x, y); }

// x * y + z
AVX512 static inline lanes lanes_multiply_add(lanes x, lanes y, lanes z) {
    return _mm512_fmadd_ps(x, y, z);
}

// the second number where one is NaN
AVX512 static inline lanes lanes_max(lanes x, lanes y) { return _mm512_max_ps(x, y); }

AVX512 static inline lanes lanes_round(lanes x) { return _mm512_roundscale_ps(x, 0); }

// x times two to the power of whole numbers that are not positive
AVX512 static inline lanes lanes_shift(lanes x, lanes whole) { return _mm512_scalef_ps(x, whole); }

AVX512 static inline lanes lanes_from_halves(const void *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(from));
}

AVX512 static inline bool lanes_differ(lanes x, lanes y) {
    return _mm512_cmpneq_ps_mask(x, y) != 0;
}

// `equal` in the lanes where x and y are, else `other`
AVX512 static inline lanes lanes_select(lanes x, lanes y, lanes equal, lanes other) {
    return _mm512_mask_mov_ps(other, _mm512_cmpeq_ps_mask(x, y), equal);
}

AVX512 static inline void lanes_transpose(lanes rows[LANES]) { transpose((__m512i *)rows); }
