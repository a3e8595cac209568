// Attention of many tokens: softmax(scale * queries * keys + mask) * values, for each head.
//
// A part of the work is a group of tokens of all heads that share their keys. It reads the cells in
// blocks of 64 and keeps the largest score and the sum of weights of each query, as in
// "flash" attention. Sixteen queries lie side by side in a vector, so that scores, [cells][queries],
// are compared and added without exchanging numbers between lanes. With AMX or AVX-512's
// instructions for bfloat16, queries, keys, values and weights are rounded to bfloat16; otherwise
// all is computed in 32 bits.

#include <math.h>

#include "vectors.h"

enum {
    CELLS = 64,            // of a block
    MAX_HEAD = 256,        // elements of a head
    MAX_SETS = 16,         // of 16 queries, in a part
    LEAST_TOKENS = 16,     // of each sequence
    STEP = 8,              // cells or elements computed at once
};

typedef enum { FLAT, MASKED, MIXED } block_kind;  // without a mask, all masked, or neither

typedef struct shape {
    const tensor *q, *k, *v, *mask, *sinks;
    float scale;
    int64_t key, value;                // elements of a head
    int64_t key_rounded, value_rounded;
    int64_t tokens, cells, heads, shared_heads, streams;
    int64_t group;                     // heads that share their keys
    int64_t group_tokens, groups;      // tokens of a part, parts for each shared head
} shape;

static shape shape_of(const tensor *result, const int32_t *op_params, int threads) {
    shape s = {.q = result->src[0], .k = result->src[1], .v = result->src[2]};
    s.mask = result->src[3];
    s.sinks = result->src[4];
    memcpy(&s.scale, op_params, sizeof s.scale);
    s.key = s.q->ne[0];
    s.value = s.v->ne[0];
    s.key_rounded = round_up(s.key, TILE_K);
    s.value_rounded = round_up(s.value, 2 * LANES);
    s.tokens = s.q->ne[1];
    s.heads = s.q->ne[2];
    s.streams = s.q->ne[3];
    s.cells = s.k->ne[1];
    s.shared_heads = s.k->ne[2];
    s.group = s.heads / s.shared_heads;
    s.group_tokens = round_up(s.tokens, LANES);
    const int64_t largest = MAX_SETS / s.group * LANES;
    if (s.group_tokens > largest) s.group_tokens = largest;
    while (s.group_tokens > LANES &&
           s.shared_heads * s.streams * (s.tokens / s.group_tokens) < 4 * threads) {
        s.group_tokens -= LANES;
    }
    s.groups = (s.tokens + s.group_tokens - 1) / s.group_tokens;
    return s;
}

static bool has_known_cells(const tensor *t) {
    if (t->type == TYPE_F32 || t->type == TYPE_F16 || t->type == TYPE_BF16) return true;
    const type_traits *traits = ggml->get_type_traits(t->type);
    return traits->is_quantized && traits->to_float != NULL &&
           t->ne[0] % traits->block_elements == 0;
}

static bool can_attend(const tensor *result) {
    const tensor *q = result->src[0], *k = result->src[1], *v = result->src[2];
    const tensor *mask = result->src[3], *sinks = result->src[4];
    float max_bias, softcap;
    memcpy(&max_bias, result->op_params + 1, sizeof max_bias);
    memcpy(&softcap, result->op_params + 2, sizeof softcap);
    if (max_bias != 0 || softcap != 0 || q->ne[1] < LEAST_TOKENS) return false;
    if (q->type != TYPE_F32 || result->type != TYPE_F32 || k->type != v->type) return false;
    if (q->nb[0] != 4 || result->nb[0] != 4 || !has_known_cells(k) || !has_known_cells(v))
        return false;
    const type_traits *traits = ggml->get_type_traits(k->type);
    if (k->nb[0] != traits->block_bytes || v->nb[0] != traits->block_bytes) return false;
    if (q->ne[0] > MAX_HEAD || v->ne[0] > MAX_HEAD || v->ne[0] % LANES || q->ne[0] % LANES)
        return false;
    if (k->ne[0] != q->ne[0] || k->ne[2] != v->ne[2] || k->ne[1] != v->ne[1]) return false;
    if (q->ne[2] % k->ne[2] != 0 || q->ne[2] / k->ne[2] > MAX_SETS) return false;
    if (k->ne[3] != q->ne[3] || v->ne[3] != q->ne[3]) return false;
    if (sinks != NULL && sinks->type != TYPE_F32) return false;
    if (mask == NULL) return true;
    return mask->type == TYPE_F16 && mask->nb[0] == 2 && mask->ne[0] >= k->ne[1] &&
           mask->ne[1] >= q->ne[1] && mask->ne[2] == 1 &&
           (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
}

vector_level attention_level(const tensor *result, vector_level highest) {
    return highest != NO_VECTORS && can_attend(result) ? highest : NO_VECTORS;
}

// What the mask of a block is, for tokens `from` to `to`.
AVX512 static block_kind kind_of_block(
    const shape *s, int64_t stream, int64_t cell, int64_t from, int64_t to) {
    const bool is_whole = cell + CELLS <= s->cells;
    if (s->mask == NULL) return is_whole ? FLAT : MIXED;
    const char *mask = (const char *)s->mask->data +
                       (s->mask->ne[3] == 1 ? 0 : stream * (int64_t)s->mask->nb[3]);
    const __m512i minus_infinity = _mm512_set1_epi16((short)0xfc00);
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    const int64_t count = is_whole ? CELLS : s->cells - cell;
    bool is_flat = is_whole, is_masked = true;
    for (int64_t token = from; token < to && (is_flat || is_masked); token++) {
        const char *row = mask + token * (int64_t)s->mask->nb[1] + cell * 2;
        for (int64_t i = 0; i < count; i += 32) {
            const __mmask32 valid =
                count - i >= 32 ? 0xffffffff : (__mmask32)((1u << (count - i)) - 1);
            const __m512i values = _mm512_maskz_loadu_epi16(valid, row + 2 * i);
            if (_mm512_mask_test_epi16_mask(valid, values, magnitude)) is_flat = false;
            if (_mm512_mask_cmpneq_epi16_mask(valid, values, minus_infinity)) is_masked = false;
        }
    }
    return is_masked ? MASKED : is_flat ? FLAT : MIXED;
}

// The mask of a block and 16 tokens: [cells][tokens]; cells and tokens that are missing are masked.
AVX512 static void read_mask(
    const shape *s, int64_t stream, int64_t cell, int64_t from, int64_t to, float *out) {
    const char *mask = NULL;
    if (s->mask != NULL) {
        mask = (const char *)s->mask->data +
               (s->mask->ne[3] == 1 ? 0 : stream * (int64_t)s->mask->nb[3]);
    }
    const __m512 masked = _mm512_set1_ps(-INFINITY);
    for (int64_t i = 0; i < CELLS; i += LANES) {
        const int64_t left = s->cells - cell - i;
        const __mmask16 valid = left >= LANES ? 0xffff
                                : left <= 0   ? 0
                                              : (__mmask16)((1u << left) - 1);
        __m512i rows[LANES];
        for (int t = 0; t < LANES; t++) {
            __m512 values = _mm512_setzero_ps();
            if (from + t >= to) {
                values = masked;
            } else if (mask != NULL && valid) {
                const char *row = mask + (from + t) * (int64_t)s->mask->nb[1] + (cell + i) * 2;
                values = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(valid, row));
            }
            rows[t] = _mm512_castps_si512(_mm512_mask_mov_ps(masked, valid, values));
        }
        transpose(rows);
        for (int t = 0; t < LANES; t++) _mm512_store_si512(out + (i + t) * LANES, rows[t]);
    }
}

// A row of keys or values as floats; `count` of them, and zeros up to `rounded`.
AVX512 static void read_cell(
    const tensor *t, const job *work, int64_t cell, int64_t head, int64_t stream, int64_t rounded,
    float *out) {
    const char *row = (const char *)t->data + cell * (int64_t)t->nb[1] +
                      head * (int64_t)t->nb[2] + stream * (int64_t)t->nb[3];
    const int64_t count = t->ne[0];
    if (t->type == TYPE_F16) {
        for (int64_t i = 0; i < count; i += LANES) {
            const __m256i halves = _mm256_loadu_si256((const __m256i *)(row + 2 * i));
            _mm512_store_ps(out + i, _mm512_cvtph_ps(halves));
        }
    } else if (t->type == TYPE_F32) {
        memcpy(out, row, (size_t)count * sizeof(float));
    } else {
        work->to_float(row, out, count);
    }
    for (int64_t i = count; i < rounded; i++) out[i] = 0;
}

// 2 to the power of numbers that are not positive; 0 for minus infinity.
AVX512 static inline __m512 power_of_two(__m512 power) {
    const __m512 x = _mm512_max_ps(_mm512_set1_ps(-200), power);  // keeps NaN
    const __m512 whole = _mm512_roundscale_ps(x, 0);
    const __m512 rest = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.33335581e-3f);
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.61812911e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

typedef struct softmax_state {
    __m512 largest, sum;
} softmax_state;

// Turn a block's scores of 16 queries, in powers of two, into weights, and the sums of what came
// before to the new largest score: `outputs` are [elements][16]. False if all are masked.
AVX512 static bool weigh(
    float *scores, const float *mask, softmax_state *state, float *outputs, int64_t elements) {
    __m512 largest = _mm512_set1_ps(-INFINITY);
    if (mask == NULL) {
        for (int i = 0; i < CELLS; i++) {
            largest = _mm512_max_ps(largest, _mm512_load_ps(scores + i * LANES));
        }
    } else {
        const __m512 log2_e = _mm512_set1_ps(1.44269504f);
        for (int i = 0; i < CELLS; i++) {
            const __m512 score = _mm512_fmadd_ps(
                _mm512_load_ps(mask + i * LANES), log2_e, _mm512_load_ps(scores + i * LANES));
            _mm512_store_ps(scores + i * LANES, score);
            largest = _mm512_max_ps(largest, score);
        }
    }
    largest = _mm512_max_ps(largest, state->largest);
    const __m512 masked = _mm512_set1_ps(-INFINITY);
    // lanes without a score so far: any number will do, as their weights are 0
    const __mmask16 empty = _mm512_cmpeq_ps_mask(largest, masked);
    const __m512 base = _mm512_mask_mov_ps(largest, empty, _mm512_setzero_ps());
    if (_mm512_cmpneq_ps_mask(largest, state->largest)) {
        const __m512 factor = power_of_two(_mm512_sub_ps(state->largest, base));
        state->sum = _mm512_mul_ps(state->sum, factor);
        for (int64_t i = 0; i < elements; i++) {
            const __m512 output = _mm512_load_ps(outputs + i * LANES);
            _mm512_store_ps(outputs + i * LANES, _mm512_mul_ps(output, factor));
        }
        state->largest = largest;
    }
    __m512 sum = state->sum;
    for (int i = 0; i < CELLS; i++) {
        const __m512 score = _mm512_load_ps(scores + i * LANES);
        const __m512 weight = power_of_two(_mm512_sub_ps(score, base));
        _mm512_store_ps(scores + i * LANES, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    state->sum = sum;
    return empty != 0xffff;
}

// Divide by the sums, and write 16 queries' outputs, [elements][16], into the result.
AVX512 static void write_outputs(
    const shape *s, tensor *result, const softmax_state *state, float *outputs, int64_t stream,
    int64_t head, int64_t from, int64_t to) {
    __m512 sum = state->sum, factor = _mm512_set1_ps(1);
    if (s->sinks != NULL) {
        const float sink = ((const float *)s->sinks->data)[head];
        const __m512 score = _mm512_set1_ps(sink * 1.44269504f);
        const __m512 base = _mm512_max_ps(score, state->largest);
        factor = power_of_two(_mm512_sub_ps(state->largest, base));
        sum = _mm512_add_ps(
            _mm512_mul_ps(sum, factor), power_of_two(_mm512_sub_ps(score, base)));
    }
    const __mmask16 full = _mm512_cmpneq_ps_mask(sum, _mm512_setzero_ps());
    factor = _mm512_maskz_div_ps(full, factor, sum);
    const int count = to - from < LANES ? (int)(to - from) : LANES;
    for (int64_t i = 0; i < s->value; i += LANES) {
        __m512i rows[LANES];
        for (int e = 0; e < LANES; e++) {
            rows[e] = _mm512_castps_si512(
                _mm512_mul_ps(_mm512_load_ps(outputs + (i + e) * LANES), factor));
        }
        transpose(rows);
        for (int t = 0; t < LANES; t++) {
            if (t >= count) continue;
            char *to_row = (char *)result->data + head * (int64_t)result->nb[1] +
                           (from + t) * (int64_t)result->nb[2] + stream * (int64_t)result->nb[3];
            _mm512_storeu_si512(to_row + i * 4, rows[t]);
        }
    }
}

// What a part of the work needs, for both kinds of kernels.
typedef struct part {
    int64_t stream, head, from, to;  // the shared head, tokens
    int sets;                        // of 16 queries: sets of tokens for each head of the group
    int token_sets;
} part;

static part part_of(const shape *s, int number) {
    part p;
    const int64_t group = s->groups - 1 - number / (s->shared_heads * s->streams);
    const int64_t rest = number % (s->shared_heads * s->streams);
    p.stream = rest / s->shared_heads;
    p.head = rest % s->shared_heads;
    p.from = group * s->group_tokens;
    p.to = p.from + s->group_tokens < s->tokens ? p.from + s->group_tokens : s->tokens;
    p.token_sets = (int)((p.to - p.from + LANES - 1) / LANES);
    p.sets = (int)(p.token_sets * s->group);
    return p;
}

static const char *query(const shape *s, const part *p, int set) {
    const int64_t head = p->head * s->group + set / p->token_sets;
    const int64_t token = p->from + set % p->token_sets * LANES;
    return (const char *)s->q->data + token * (int64_t)s->q->nb[1] +
           head * (int64_t)s->q->nb[2] + p->stream * (int64_t)s->q->nb[3];
}

static int queries_of(const part *p, int set) {
    const int64_t left = p->to - p->from - set % p->token_sets * LANES;
    return left < LANES ? (int)left : LANES;
}

// bfloat16

typedef struct bf16_memory {
    ALIGNED char queries[MAX_SETS][MAX_HEAD / TILE_K][TILE_BYTES];  // [pairs of elements][queries]
    ALIGNED uint32_t keys[CELLS * MAX_HEAD / 2];      // [cells][pairs of elements]
    ALIGNED uint32_t values[MAX_HEAD * CELLS / 2];    // as `read_values` writes them
    ALIGNED float scores[2][CELLS * LANES];           // [cells][queries]
    ALIGNED char weights[2][CELLS / TILE_K][TILE_BYTES];  // [pairs of cells][queries]
    ALIGNED float outputs[MAX_SETS][MAX_HEAD * LANES];  // [elements][queries]
    ALIGNED float masks[MAX_SETS][CELLS * LANES];     // [cells][tokens]
    ALIGNED float pair[2][MAX_HEAD];
    softmax_state states[MAX_SETS];
} bf16_memory;

BF16 static void read_keys(
    const shape *s, const part *p, const job *work, int64_t cell, bf16_memory *m) {
    const int64_t pairs = s->key_rounded / 2;
    uint32_t *to = m->keys;
    for (int64_t i = 0; i < CELLS; i++, to += pairs) {
        if (cell + i >= s->cells) {
            memset(to, 0, (size_t)pairs * sizeof *to);
            continue;
        }
        read_cell(s->k, work, cell + i, p->head, p->stream, s->key_rounded, m->pair[0]);
        for (int64_t e = 0; e < s->key_rounded; e += TILE_K) {
            const __m512 low = _mm512_load_ps(m->pair[0] + e);
            const __m512 high = _mm512_load_ps(m->pair[0] + e + LANES);
            _mm512_storeu_si512(to + e / 2, pack_bf16(low, high));
        }
    }
}

// The values of a block: [elements][pairs of cells] for tiles, else [pairs of cells][elements].
BF16 static void read_values(
    const shape *s, const part *p, const job *work, int64_t cell, bf16_memory *m) {
    ALIGNED uint32_t pairs[CELLS / 2][MAX_HEAD];
    for (int64_t i = 0; i < CELLS; i += 2) {
        for (int half = 0; half < 2; half++) {
            const int64_t at = cell + i + half;
            if (at < s->cells) {
                read_cell(s->v, work, at, p->head, p->stream, s->value_rounded, m->pair[half]);
            } else {
                memset(m->pair[half], 0, (size_t)s->value_rounded * sizeof(float));
            }
        }
        uint32_t *to = work->level == VECTORS_AMX ? pairs[i / 2]
                                                  : m->values + i / 2 * s->value_rounded;
        for (int64_t e = 0; e < s->value_rounded; e += LANES) {
            const __m512 low = _mm512_load_ps(m->pair[0] + e);
            const __m512 high = _mm512_load_ps(m->pair[1] + e);
            _mm512_store_si512(to + e, pair_bf16(low, high));
        }
    }
    if (work->level != VECTORS_AMX) return;
    for (int64_t first = 0; first < CELLS / 2; first += LANES) {
        for (int64_t e = 0; e < s->value_rounded; e += LANES) {
            __m512i rows[LANES];
            for (int i = 0; i < LANES; i++) rows[i] = _mm512_load_si512(pairs[first + i] + e);
            transpose(rows);
            for (int i = 0; i < LANES; i++) {
                _mm512_store_si512(m->values + (e + i) * CELLS / 2 + first, rows[i]);
            }
        }
    }
}

// Scores of a block for two sets of queries.
AMX static void score_tiles(const shape *s, bf16_memory *m, int set, int other) {
    const size_t row_bytes = (size_t)s->key_rounded * 2;
    const int64_t steps = s->key_rounded / TILE_K;
    for (int64_t cell = 0; cell < CELLS; cell += 2 * LANES) {
        const char *upper = (const char *)m->keys + cell * (int64_t)row_bytes;
        const char *lower = upper + LANES * row_bytes;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t e = 0; e < steps; e++) {
            _tile_loadd(4, upper + 64 * e, row_bytes);
            _tile_loadd(6, m->queries[set][e], 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, m->queries[other][e], 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, lower + 64 * e, row_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, m->scores[0] + cell * LANES, 64);
        _tile_stored(1, m->scores[1] + cell * LANES, 64);
        _tile_stored(2, m->scores[0] + (cell + LANES) * LANES, 64);
        _tile_stored(3, m->scores[1] + (cell + LANES) * LANES, 64);
    }
}

// Add the block's values, weighted, to the outputs of two sets of queries.
AMX static void add_tiles(const shape *s, bf16_memory *m, int set, int other) {
    for (int64_t e = 0; e < s->value_rounded; e += 2 * LANES) {
        float *first = m->outputs[set] + e * LANES, *second = m->outputs[other] + e * LANES;
        _tile_loadd(0, first, 64);
        _tile_loadd(1, second, 64);
        _tile_loadd(2, first + LANES * LANES, 64);
        _tile_loadd(3, second + LANES * LANES, 64);
        for (int64_t k = 0; k < CELLS / TILE_K; k++) {
            const uint32_t *values = m->values + (e * CELLS + k * TILE_K) / 2;
            _tile_loadd(4, values, CELLS * 2);
            _tile_loadd(6, m->weights[0][k], 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, m->weights[1][k], 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, values + LANES * CELLS / 2, CELLS * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, first, 64);
        _tile_stored(2, first + LANES * LANES, 64);
        if (other == set) continue;  // the same memory
        _tile_stored(1, second, 64);
        _tile_stored(3, second + LANES * LANES, 64);
    }
}

// Add the products of a pair of numbers and of 16 pairs to 16 sums.
BF16 static inline __m512 add_products(__m512 sums, uint32_t pair, const void *pairs) {
    const __m512i one = _mm512_set1_epi32((int)pair), others = _mm512_load_si512(pairs);
    return _mm512_dpbf16_ps(sums, (__m512bh)one, (__m512bh)others);
}

// Without tiles: scores of a block for two sets of queries. Each pair of a key is read once for both.
BF16 static void score_pairs(const shape *s, bf16_memory *m, int set, int other) {
    const int64_t pairs = s->key_rounded / 2;
    for (int64_t cell = 0; cell < CELLS; cell += STEP) {
        const char *first = m->queries[set][0], *second = m->queries[other][0];
        const uint32_t *keys = m->keys + cell * pairs;
        __m512 sums[2][STEP];
        for (int i = 0; i < STEP; i++) sums[0][i] = sums[1][i] = _mm512_setzero_ps();
        for (int64_t e = 0; e < pairs; e++, keys++, first += 64, second += 64) {
            for (int i = 0; i < STEP; i++) {
                sums[0][i] = add_products(sums[0][i], keys[i * pairs], first);
                sums[1][i] = add_products(sums[1][i], keys[i * pairs], second);
            }
        }
        for (int i = 0; i < STEP; i++) {
            _mm512_store_ps(m->scores[0] + (cell + i) * LANES, sums[0][i]);
            _mm512_store_ps(m->scores[1] + (cell + i) * LANES, sums[1][i]);
        }
    }
}

// Without tiles: add the block's values, weighted, to the outputs of two sets of queries.
BF16 static void add_pairs(const shape *s, bf16_memory *m, int set, int other) {
    for (int64_t e = 0; e < s->value_rounded; e += STEP) {
        float *outputs[2] = {m->outputs[set] + e * LANES, m->outputs[other] + e * LANES};
        const char *first = m->weights[0][0], *second = m->weights[1][0];
        const uint32_t *values = m->values + e;
        __m512 sums[2][STEP];
        for (int i = 0; i < STEP; i++) {
            sums[0][i] = _mm512_load_ps(outputs[0] + i * LANES);
            sums[1][i] = _mm512_load_ps(outputs[1] + i * LANES);
        }
        for (int cell = 0; cell < CELLS; cell += 2, first += 64, second += 64) {
            for (int i = 0; i < STEP; i++) {
                sums[0][i] = add_products(sums[0][i], values[i], first);
                sums[1][i] = add_products(sums[1][i], values[i], second);
            }
            values += s->value_rounded;
        }
        for (int i = 0; i < STEP; i++) {
            _mm512_store_ps(outputs[0] + i * LANES, sums[0][i]);
            if (other != set) _mm512_store_ps(outputs[1] + i * LANES, sums[1][i]);
        }
    }
}

BF16 static void pack_weights(const float *weights, char *tiles) {
    for (int i = 0; i < CELLS; i += 2) {
        const __m512 first = _mm512_load_ps(weights + i * LANES);
        const __m512 second = _mm512_load_ps(weights + (i + 1) * LANES);
        _mm512_store_si512(tiles + i / 2 * 64, pair_bf16(first, second));
    }
}

BF16 static void attend_part_bf16(
    const shape *s, tensor *result, const job *work, int number, bf16_memory *m) {
    const part p = part_of(s, number);
    const bool has_tiles = work->level == VECTORS_AMX;
    const __m512 scale = _mm512_set1_ps(s->scale * 1.44269504f);  // scores in powers of two
    for (int set = 0; set < p.sets; set++) {
        pack_right_tiles(
            m->queries[set][0], query(s, &p, set), s->q->nb[1], queries_of(&p, set), s->key, scale);
        memset(m->outputs[set], 0, (size_t)s->value_rounded * LANES * sizeof(float));
        m->states[set].largest = _mm512_set1_ps(-INFINITY);
        m->states[set].sum = _mm512_setzero_ps();
    }
    for (int64_t cell = 0; cell < s->cells; cell += CELLS) {
        const block_kind kind = kind_of_block(s, p.stream, cell, p.from, p.to);
        if (kind == MASKED) continue;
        if (kind == MIXED) {
            for (int set = 0; set < p.token_sets; set++) {
                const int64_t from = p.from + set * LANES;
                read_mask(s, p.stream, cell, from, p.to, m->masks[set]);
            }
        }
        read_keys(s, &p, work, cell, m);
        read_values(s, &p, work, cell, m);
        for (int set = 0; set < p.sets; set += 2) {
            const int other = set + 1 < p.sets ? set + 1 : set;
            SETTLE_STORES();
            (has_tiles ? score_tiles : score_pairs)(s, m, set, other);
            for (int i = 0; i < 2; i++) {
                const int one = i == 0 ? set : other;
                if (i == 1 && other == set) break;
                const float *mask = kind == MIXED ? m->masks[one % p.token_sets] : NULL;
                weigh(m->scores[i], mask, &m->states[one], m->outputs[one], s->value_rounded);
                pack_weights(m->scores[i], m->weights[i][0]);
            }
            SETTLE_STORES();
            (has_tiles ? add_tiles : add_pairs)(s, m, set, other);
        }
    }
    for (int set = 0; set < p.sets; set++) {
        const int64_t head = p.head * s->group + set / p.token_sets;
        const int64_t from = p.from + set % p.token_sets * LANES;
        write_outputs(s, result, &m->states[set], m->outputs[set], p.stream, head, from, p.to);
    }
}

// 32-bit numbers

typedef struct float_memory {
    ALIGNED float queries[MAX_SETS][MAX_HEAD * LANES];  // [elements][queries]
    ALIGNED float keys[CELLS * MAX_HEAD];
    ALIGNED float values[CELLS * MAX_HEAD];
    ALIGNED float scores[CELLS * LANES];
    ALIGNED float outputs[MAX_SETS][MAX_HEAD * LANES];
    ALIGNED float masks[MAX_SETS][CELLS * LANES];
    softmax_state states[MAX_SETS];
} float_memory;

AVX512 static void read_block(
    const shape *s, const tensor *t, const part *p, const job *work, int64_t cell, float *out) {
    for (int64_t i = 0; i < CELLS; i++, out += t->ne[0]) {
        if (cell + i < s->cells) {
            read_cell(t, work, cell + i, p->head, p->stream, t->ne[0], out);
        } else {
            memset(out, 0, (size_t)t->ne[0] * sizeof(float));
        }
    }
}

AVX512 static void score_floats(
    const float *keys, const float *queries, int64_t elements, float *scores) {
    for (int cell = 0; cell < CELLS; cell += 2 * STEP) {
        __m512 sums[2 * STEP];
        for (int i = 0; i < 2 * STEP; i++) sums[i] = _mm512_setzero_ps();
        const float *key = keys + cell * elements;
        for (int64_t e = 0; e < elements; e++) {
            const __m512 both = _mm512_load_ps(queries + e * LANES);
            for (int i = 0; i < 2 * STEP; i++) {
                sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(key[i * elements + e]), both, sums[i]);
            }
        }
        for (int i = 0; i < 2 * STEP; i++) {
            _mm512_store_ps(scores + (cell + i) * LANES, sums[i]);
        }
    }
}

AVX512 static void add_floats(
    const float *values, const float *weights, int64_t elements, float *outputs) {
    for (int64_t e = 0; e < elements; e += 2 * STEP) {
        __m512 sums[2 * STEP];
        for (int i = 0; i < 2 * STEP; i++) {
            sums[i] = _mm512_load_ps(outputs + (e + i) * LANES);
        }
        for (int cell = 0; cell < CELLS; cell++) {
            const __m512 weight = _mm512_load_ps(weights + cell * LANES);
            const float *value = values + cell * elements + e;
            for (int i = 0; i < 2 * STEP; i++) {
                sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(value[i]), weight, sums[i]);
            }
        }
        for (int i = 0; i < 2 * STEP; i++) {
            _mm512_store_ps(outputs + (e + i) * LANES, sums[i]);
        }
    }
}

AVX512 static void read_queries(
    const shape *s, const part *p, int set, __m512 scale, float *out) {
    const char *from = query(s, p, set);
    const int count = queries_of(p, set);
    for (int64_t e = 0; e < s->key; e += LANES) {
        __m512i rows[LANES];
        for (int i = 0; i < LANES; i++) {
            const float *row = (const float *)(from + (int64_t)s->q->nb[1] * i) + e;
            rows[i] = i < count ? _mm512_castps_si512(_mm512_mul_ps(_mm512_loadu_ps(row), scale))
                                : _mm512_setzero_si512();
        }
        transpose(rows);
        for (int i = 0; i < LANES; i++) _mm512_store_si512(out + (e + i) * LANES, rows[i]);
    }
}

AVX512 static void attend_part_floats(
    const shape *s, tensor *result, const job *work, int number, float_memory *m) {
    const part p = part_of(s, number);
    const __m512 scale = _mm512_set1_ps(s->scale * 1.44269504f);  // scores in powers of two
    for (int set = 0; set < p.sets; set++) {
        read_queries(s, &p, set, scale, m->queries[set]);
        memset(m->outputs[set], 0, (size_t)s->value * LANES * sizeof(float));
        m->states[set].largest = _mm512_set1_ps(-INFINITY);
        m->states[set].sum = _mm512_setzero_ps();
    }
    for (int64_t cell = 0; cell < s->cells; cell += CELLS) {
        const block_kind kind = kind_of_block(s, p.stream, cell, p.from, p.to);
        if (kind == MASKED) continue;
        read_block(s, s->k, &p, work, cell, m->keys);
        read_block(s, s->v, &p, work, cell, m->values);
        for (int set = 0; set < p.token_sets && kind == MIXED; set++) {
            read_mask(s, p.stream, cell, p.from + set * LANES, p.to, m->masks[set]);
        }
        for (int set = 0; set < p.sets; set++) {
            score_floats(m->keys, m->queries[set], s->key, m->scores);
            const float *mask = kind == MIXED ? m->masks[set % p.token_sets] : NULL;
            if (weigh(m->scores, mask, &m->states[set], m->outputs[set], s->value)) {
                add_floats(m->values, m->scores, s->value, m->outputs[set]);
            }
        }
    }
    for (int set = 0; set < p.sets; set++) {
        const int64_t head = p.head * s->group + set / p.token_sets;
        const int64_t from = p.from + set % p.token_sets * LANES;
        write_outputs(s, result, &m->states[set], m->outputs[set], p.stream, head, from, p.to);
    }
}

BF16 static void attend_bf16(const shape *s, tensor *result, job *work, int parts) {
    bf16_memory memory;
    int number;
    while ((number = atomic_fetch_add(&work->next, 1)) < parts) {
        attend_part_bf16(s, result, work, number, &memory);
    }
}

AMX static void attend_amx(const shape *s, tensor *result, job *work, int parts) {
    open_tiles();
    attend_bf16(s, result, work, parts);
    _tile_release();
}

AVX512 static void attend_floats(const shape *s, tensor *result, job *work, int parts) {
    float_memory memory;
    int number;
    while ((number = atomic_fetch_add(&work->next, 1)) < parts) {
        attend_part_floats(s, result, work, number, &memory);
    }
}

void attend(tensor *result, int thread, int threads, void *context) {
    (void)thread;
    job *work = context;
    const shape s = shape_of(result, work->op_params, threads);
    const int parts = (int)(s.groups * s.shared_heads * s.streams);
    if (work->level == VECTORS_AMX) {
        attend_amx(&s, result, work, parts);
    } else if (work->level == VECTORS_BF16) {
        attend_bf16(&s, result, work, parts);
    } else {
        attend_floats(&s, result, work, parts);
    }
}
