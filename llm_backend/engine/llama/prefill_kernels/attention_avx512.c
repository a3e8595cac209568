// Attention with AVX-512: in 32 bits, and in bfloat16 with its own instructions or with AMX's tiles.

#include "lanes_avx512.h"
#include "attention_floats.h"

enum { STEP = 8 };  // cells or elements of two sets of queries, computed at once

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

AVX512 void attend_avx512(const shape *s, tensor *result, job *work, int parts) {
    attend_floats(s, result, work, parts);
}

BF16 void attend_bf16(const shape *s, tensor *result, job *work, int parts) {
    bf16_memory memory;
    int number;
    while ((number = atomic_fetch_add(&work->next, 1)) < parts) {
        attend_part_bf16(s, result, work, number, &memory);
    }
}

AMX void attend_amx(const shape *s, tensor *result, job *work, int parts) {
    open_tiles();
    attend_bf16(s, result, work, parts);
    _tile_release();
}
