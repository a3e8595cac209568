/* One token sampled from a row of logits by temperature, top-p and min-p.
 *
 * What `sample_nucleus` of filters.py does, in three passes over the vocabulary instead of nine: the
 * largest logit, the weights and their sums, and for each sample the sum of what is likelier. A pass
 * of the model leaves nothing of this in the processor's caches, so passes are what it costs.
 *
 * Compiled by hatch_build.py with GCC or Clang, whose vector types it uses. On x86 it wants AVX2 and
 * FMA, without which numpy is faster: ask `llm_backend_nucleus_suits` first.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define BLOCK 512 /* weights that are summed together, and searched where a sample falls */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));

#define INLINE static inline __attribute__((always_inline))

enum { NOT_SAMPLED = -1, NOT_FINITE = -2 };

static const float LEAST = -86.0f; /* e to the power of less is no normal number */

INLINE floats where(ints mask, floats value) { return (floats)((ints)value & mask); }

INLINE floats larger(floats one, floats other) {
    ints first = one > other;
    return (floats)(((ints)one & first) | ((ints)other & ~first));
}

INLINE float sum_of(floats lanes) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

/* e to the power of each lane, which is at most 0; 0 for less than LEAST and for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2: the power of r is a series, that of two goes into the
 * exponent's bits. The relative error is below 2e-7. */
INLINE floats powers(floats x) {
    const float ROUNDS = 12582912.0f; /* 1.5 x 2^23: adding it leaves no bits after the point */
    ints counts = x >= LEAST;
    x = where(counts, x);
    floats shifted = x * 1.44269504f + ROUNDS;
    floats n = shifted - ROUNDS;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats series = 1.0f / 5040 + r * (1.0f / 40320);
    series = 1.0f / 720 + r * series;
    series = 1.0f / 120 + r * series;
    series = 1.0f / 24 + r * series;
    series = 1.0f / 6 + r * series;
    series = 0.5f + r * series;
    series = 1.0f + r * (1.0f + r * series);
    return where(counts, (floats)((ints)series + ((ints)shifted << 23)));
}

/* The largest of the row; NaN shows as not equal to itself. */
INLINE float peak_of(const float *row, size_t count, int *has_nan) {
    size_t index = 0;
    float peak = row[0];
    if (count >= LANES) {
        floats most = *(const floats *)row;
        ints odd = most != most;
        for (; index + LANES <= count; index += LANES) {
            floats here = *(const floats *)(row + index);
            odd |= here != here;
            most = larger(here, most);
        }
        for (int lane = 0; lane < LANES; lane++) {
            *has_nan |= odd[lane];
            if (most[lane] > peak) peak = most[lane];
        }
    }
    for (; index < count; index++) {
        *has_nan |= row[index] != row[index];
        if (row[index] > peak) peak = row[index];
    }
    return peak;
}

/* Weights of one block, 1 for the peak; gives their sum. */
INLINE double weigh(const float *row, float *weights, size_t count, float peak, float scale) {
    floats sums = {0};
    size_t index = 0;
    for (; index + LANES <= count; index += LANES) {
        floats found = powers((*(const floats *)(row + index) - peak) * scale);
        *(floats *)(weights + index) = found;
        sums += found;
    }
    float sum = sum_of(sums);
    for (; index < count; index++) {
        floats one = {(row[index] - peak) * scale};
        weights[index] = powers(one)[0];
        sum += weights[index];
    }
    return sum;
}

/* The sum of the weights that are larger than `weight`, as far as it matters: not beyond `enough`. */
INLINE double mass_above(const float *weights, size_t count, float weight, double enough) {
    double mass = 0;
    for (size_t start = 0; start < count && mass < enough; start += BLOCK) {
        size_t index = start, end = start + BLOCK < count ? start + BLOCK : count;
        floats sums = {0};
        for (; index + LANES <= end; index += LANES) {
            floats here = *(const floats *)(weights + index);
            sums += where(here > weight, here);
        }
        mass += sum_of(sums);
        for (; index < end; index++)
            if (weights[index] > weight) mass += weights[index];
    }
    return mass;
}

/* The index at which the running sum passes `target`; the last one with a weight if rounding lets
 * none pass. */
INLINE size_t index_at(const float *weights, const double *sums, size_t count, double target) {
    size_t block = 0, blocks = (count + BLOCK - 1) / BLOCK, last = 0;
    double below = 0;
    while (block + 1 < blocks && below + sums[block] <= target) below += sums[block++];
    for (size_t index = block * BLOCK; index < count; index++) {
        if (weights[index] > 0) last = index;
        below += weights[index];
        if (below > target) return index;
    }
    while (last == 0 && count > 1 && weights[count - 1] == 0) count--;
    return last ? last : count - 1;
}

/* 1 if this processor has the instructions that the rest was compiled for. */
int llm_backend_nucleus_suits(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* Samples until an index passes `top_p` and `min_p`, `attempts` times at most: returns that index,
 * NOT_SAMPLED, or NOT_FINITE if the row has no largest number. `weights` holds `count` numbers and
 * `sums` one for each block; `next` returns evenly distributed numbers from 0 to 1.
 */
int32_t llm_backend_nucleus(const float *row, size_t count, float scale, float top_p, float min_p,
                         int attempts, double (*next)(void *), void *state, float *weights,
                         double *sums) {
    int has_nan = 0;
    float peak = peak_of(row, count, &has_nan);
    if (has_nan || peak - peak != 0) return NOT_FINITE;
    double total = 0;
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t length = start + BLOCK < count ? BLOCK : count - start;
        sums[start / BLOCK] = weigh(row + start, weights + start, length, peak, scale);
        total += sums[start / BLOCK];
    }
    int takes_all = top_p >= 1 && min_p <= 0;
    while (takes_all || attempts-- > 0) {
        size_t index = index_at(weights, sums, count, next(state) * total);
        if (takes_all) return (int32_t)index;
        if (weights[index] < min_p) continue;
        if (top_p >= 1) return (int32_t)index;
        if (mass_above(weights, count, weights[index], top_p * total) < top_p * total)
            return (int32_t)index;
    }
    return NOT_SAMPLED;
}
