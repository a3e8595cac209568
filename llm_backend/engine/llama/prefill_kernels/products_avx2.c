// Products of 8 bits with AVX2: two columns of 8 rows, widened to 16 bits, in an instruction. Its
// instruction for 8 bits would add two products in 16 bits, which overflow.

#include "lanes_avx2.h"

enum { ZERO = 0, TOKENS = 4, STEP = 2, PART_COLUMNS = 512 };

typedef int16_t packed_number;
typedef struct integers {
    __m256i low, high;
} integers;

VECTORS static float largest_of(lanes x, lanes y) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const lanes larger = {
        _mm256_max_ps(_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, y.low)),
        _mm256_max_ps(_mm256_andnot_ps(sign, x.high), _mm256_andnot_ps(sign, y.high))};
    float values[LANES / 2], largest = 0;
    _mm256_storeu_ps(values, _mm256_max_ps(larger.low, larger.high));
    for (int i = 0; i < LANES / 2; i++) largest = values[i] > largest ? values[i] : largest;
    return largest;
}

VECTORS static void round_block(const float *from, float factor, packed_number *to) {
    for (int half = 0; half < 2; half++, from += LANES, to += LANES) {
        const lanes scaled = lanes_multiply(lanes_load(from), lanes_fill(factor));
        const __m256i both = _mm256_packs_epi32(
            _mm256_cvtps_epi32(scaled.low), _mm256_cvtps_epi32(scaled.high));
        _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(both, 0xd8));
    }
}

VECTORS static integers interleave_block(const char *rows[LANES], integers *to) {
    lanes pairs[LANES];
    for (int i = 0; i < LANES; i++) {
        const __m128i *bytes = (const __m128i *)rows[i];
        pairs[i].low = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128(bytes)));
        pairs[i].high = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128(bytes + 1)));
    }
    lanes_transpose(pairs);
    for (int i = 0; i < LANES; i++) lanes_store((float *)(to + i), pairs[i]);
    return (integers){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

VECTORS static inline integers load_integers(const integers *from) {
    integers x = *from;
    KEEP(x);
    return x;
}

VECTORS static inline integers add_products(
    integers sums, const packed_number *numbers, integers weights) {
    int32_t two;
    memcpy(&two, numbers, sizeof two);
    const __m256i both = _mm256_set1_epi32(two);
    return (integers){
        _mm256_add_epi32(sums.low, _mm256_madd_epi16(both, weights.low)),
        _mm256_add_epi32(sums.high, _mm256_madd_epi16(both, weights.high))};
}

VECTORS static inline lanes to_lanes(integers sums) {
    return (lanes){_mm256_cvtepi32_ps(sums.low), _mm256_cvtepi32_ps(sums.high)};
}

VECTORS static inline lanes load_rows(const float *from, int rows) {
    float values[LANES] = {0};
    if (rows == LANES) return lanes_load(from);
    memcpy(values, from, (size_t)rows * sizeof *from);
    return lanes_load(values);
}

VECTORS static inline void store_rows(float *to, lanes sums, int rows) {
    float values[LANES];
    if (rows == LANES) {
        lanes_store(to, sums);
    } else {
        lanes_store(values, sums);
        memcpy(to, values, (size_t)rows * sizeof *to);
    }
}

#include "products_blocks.h"

size_t packed_bytes_avx2(int64_t columns, int64_t tokens) {
    return packed_bytes_blocks(columns, tokens);
}

VECTORS void multiply_avx2(tensor *result, job *work) { multiply_blocks(result, work); }
