// Products of 8 bits with VNNI: four columns of 16 rows in an instruction.

#include "lanes_avx512.h"

enum { ZERO = 128, TOKENS = 8, STEP = 4, PART_COLUMNS = 2048 };

typedef uint8_t packed_number;  // from 1 to 255
typedef __m512i integers;

AVX512 static float largest_of(lanes x, lanes y) {
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x), _mm512_abs_ps(y)));
}

AVX512 static void round_block(const float *from, float factor, packed_number *to) {
    for (int half = 0; half < 2; half++, from += LANES, to += LANES) {
        const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(from), _mm512_set1_ps(factor));
        const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(scaled));
        _mm_storeu_si128((__m128i *)to, _mm_xor_si128(bytes, _mm_set1_epi8((char)128)));
    }
}

// Returns -128 times the sums of the weights, as activations are by 128 larger than they should be.
AVX512 static integers interleave_block(const char *rows[LANES], integers *to) {
    __m512i numbers[LANES];
    for (int i = 0; i < LANES; i++) {
        numbers[i] = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)rows[i]));
    }
    transpose(numbers);  // half of the columns are of no use
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < 32 / STEP; i++) {
        _mm512_store_si512(to + i, numbers[i]);
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), numbers[i]);
    }
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7));
}

AVX512 static inline integers load_integers(const integers *from) {
    return _mm512_load_si512(from);
}

AVX512 static inline integers add_products(
    integers sums, const packed_number *numbers, integers weights) {
    int32_t four;
    memcpy(&four, numbers, sizeof four);
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(four), weights);
}

AVX512 static inline lanes to_lanes(integers sums) { return _mm512_cvtepi32_ps(sums); }

AVX512 static inline __mmask16 mask_of(int rows) { return (__mmask16)((1u << rows) - 1); }

AVX512 static inline lanes load_rows(const float *from, int rows) {
    return _mm512_maskz_loadu_ps(mask_of(rows), from);
}

AVX512 static inline void store_rows(float *to, lanes sums, int rows) {
    _mm512_mask_storeu_ps(to, mask_of(rows), sums);
}

#include "products_blocks.h"

size_t packed_bytes_vnni(int64_t columns, int64_t tokens) {
    return packed_bytes_blocks(columns, tokens);
}

AVX512 void multiply_vnni(tensor *result, job *work) { multiply_blocks(result, work); }
