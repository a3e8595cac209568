// Attention in 32 bits, for the vectors of a header lanes_*.h that is included before.

#pragma once

#include <math.h>

#include "attention.h"

enum { MINUS_INFINITY = 0xfc00 };  // in half precision

typedef enum { FLAT, MASKED, MIXED } block_kind;  // without a mask, all masked, or neither

// What the mask of a block is, for tokens `from` to `to`.
VECTORS static block_kind kind_of_block(
    const shape *s, int64_t stream, int64_t cell, int64_t from, int64_t to) {
    const bool is_whole = cell + CELLS <= s->cells;
    if (s->mask == NULL) return is_whole ? FLAT : MIXED;
    const char *mask = (const char *)s->mask->data +
                       (s->mask->ne[3] == 1 ? 0 : stream * (int64_t)s->mask->nb[3]);
    const int64_t count = is_whole ? CELLS : s->cells - cell;
    bool is_flat = is_whole, is_masked = true;
    for (int64_t token = from; token < to && (is_flat || is_masked); token++) {
        const uint16_t *row =
            (const uint16_t *)(mask + token * (int64_t)s->mask->nb[1] + cell * 2);
        uint16_t magnitudes = 0, differences = 0;  // bits of any number
        for (int64_t i = 0; i < count; i++) {
            magnitudes |= row[i] & 0x7fff;
            differences |= row[i] ^ MINUS_INFINITY;
        }
        if (magnitudes) is_flat = false;
        if (differences) is_masked = false;
    }
    return is_masked ? MASKED : is_flat ? FLAT : MIXED;
}

// The mask of a block and 16 tokens: [cells][tokens]; cells and tokens that are missing are masked.
VECTORS static void read_mask(
    const shape *s, int64_t stream, int64_t cell, int64_t from, int64_t to, float *out) {
    const tensor *mask = s->mask;
    for (int64_t i = 0; i < CELLS; i += LANES) {
        const int64_t left = s->cells - cell - i;
        const int count = left >= LANES ? LANES : left > 0 ? (int)left : 0;
        lanes rows[LANES];
        for (int t = 0; t < LANES; t++) {
            uint16_t halves[LANES];
            for (int j = 0; j < LANES; j++) halves[j] = MINUS_INFINITY;
            if (from + t < to && mask == NULL) {
                memset(halves, 0, (size_t)count * 2);
            } else if (from + t < to) {
                const char *row = (const char *)mask->data + (from + t) * (int64_t)mask->nb[1] +
                                  (mask->ne[3] == 1 ? 0 : stream * (int64_t)mask->nb[3]);
                memcpy(halves, row + (cell + i) * 2, (size_t)count * 2);
            }
            rows[t] = lanes_from_halves(halves);
        }
        lanes_transpose(rows);
        for (int t = 0; t < LANES; t++) lanes_store(out + (i + t) * LANES, rows[t]);
    }
}

// A row of keys or values as floats; `count` of them, and zeros up to `rounded`.
VECTORS static void read_cell(
    const tensor *t, const job *work, int64_t cell, int64_t head, int64_t stream, int64_t rounded,
    float *out) {
    const char *row = (const char *)t->data + cell * (int64_t)t->nb[1] +
                      head * (int64_t)t->nb[2] + stream * (int64_t)t->nb[3];
    const int64_t count = t->ne[0];
    if (t->type == TYPE_F16) {
        for (int64_t i = 0; i < count; i += LANES) {
            lanes_store(out + i, lanes_from_halves(row + 2 * i));
        }
    } else if (t->type == TYPE_F32) {
        memcpy(out, row, (size_t)count * sizeof(float));
    } else {
        work->to_float(row, out, count);
    }
    for (int64_t i = count; i < rounded; i++) out[i] = 0;
}

// 2 to the power of numbers that are not positive; 0 for minus infinity.
VECTORS static inline lanes power_of_two(lanes power) {
    const lanes x = lanes_max(lanes_fill(-200), power);  // keeps NaN
    const lanes whole = lanes_round(x);
    const lanes rest = lanes_subtract(x, whole);
    lanes y = lanes_fill(1.33335581e-3f);
    y = lanes_multiply_add(y, rest, lanes_fill(9.61812911e-3f));
    y = lanes_multiply_add(y, rest, lanes_fill(5.55041087e-2f));
    y = lanes_multiply_add(y, rest, lanes_fill(2.40226507e-1f));
    y = lanes_multiply_add(y, rest, lanes_fill(6.93147181e-1f));
    y = lanes_multiply_add(y, rest, lanes_fill(1.0f));
    return lanes_shift(y, whole);
}

typedef struct softmax_state {
    lanes largest, sum;
} softmax_state;

// Turn a block's scores of 16 queries, in powers of two, into weights, and the sums of what came
// before to the new largest score: `outputs` are [elements][16]. False if all are masked.
VECTORS static bool weigh(
    float *scores, const float *mask, softmax_state *state, float *outputs, int64_t elements) {
    const lanes masked = lanes_fill(-INFINITY);
    lanes largest = masked;
    if (mask == NULL) {
        for (int i = 0; i < CELLS; i++) {
            largest = lanes_max(largest, lanes_load(scores + i * LANES));
        }
    } else {
        const lanes log2_e = lanes_fill(1.44269504f);
        for (int i = 0; i < CELLS; i++) {
            const lanes score = lanes_multiply_add(
                lanes_load(mask + i * LANES), log2_e, lanes_load(scores + i * LANES));
            lanes_store(scores + i * LANES, score);
            largest = lanes_max(largest, score);
        }
    }
    largest = lanes_max(largest, state->largest);
    // lanes without a score so far: any number will do, as their weights are 0
    const lanes base = lanes_select(largest, masked, lanes_fill(0), largest);
    if (lanes_differ(largest, state->largest)) {
        const lanes factor = power_of_two(lanes_subtract(state->largest, base));
        state->sum = lanes_multiply(state->sum, factor);
        for (int64_t i = 0; i < elements; i++) {
            const lanes output = lanes_load(outputs + i * LANES);
            lanes_store(outputs + i * LANES, lanes_multiply(output, factor));
        }
        state->largest = largest;
    }
    lanes sum = state->sum;
    for (int i = 0; i < CELLS; i++) {
        const lanes score = lanes_load(scores + i * LANES);
        const lanes weight = power_of_two(lanes_subtract(score, base));
        lanes_store(scores + i * LANES, weight);
        sum = lanes_add(sum, weight);
    }
    state->sum = sum;
    return lanes_differ(largest, masked);
}

// Divide by the sums, and write 16 queries' outputs, [elements][16], into the result.
VECTORS static void write_outputs(
    const shape *s, tensor *result, const softmax_state *state, float *outputs, int64_t stream,
    int64_t head, int64_t from, int64_t to) {
    const lanes zero = lanes_fill(0);
    lanes sum = state->sum, factor = lanes_fill(1);
    if (s->sinks != NULL) {
        const float sink = ((const float *)s->sinks->data)[head];
        const lanes score = lanes_fill(sink * 1.44269504f);
        const lanes base = lanes_max(score, state->largest);
        factor = power_of_two(lanes_subtract(state->largest, base));
        const lanes weight = power_of_two(lanes_subtract(score, base));
        sum = lanes_multiply_add(sum, factor, weight);
    }
    factor = lanes_select(sum, zero, zero, lanes_divide(factor, sum));
    const int count = to - from < LANES ? (int)(to - from) : LANES;
    for (int64_t i = 0; i < s->value; i += LANES) {
        lanes rows[LANES];
        for (int e = 0; e < LANES; e++) {
            rows[e] = lanes_multiply(lanes_load(outputs + (i + e) * LANES), factor);
        }
        lanes_transpose(rows);
        for (int t = 0; t < count; t++) {
            char *row = (char *)result->data + head * (int64_t)result->nb[1] +
                        (from + t) * (int64_t)result->nb[2] + stream * (int64_t)result->nb[3];
            lanes_store((float *)row + i, rows[t]);
        }
    }
}

typedef struct float_memory {
    ALIGNED float queries[MAX_SETS][MAX_HEAD * LANES];  // [elements][queries]
    ALIGNED float keys[CELLS * MAX_HEAD];
    ALIGNED float values[CELLS * MAX_HEAD];
    ALIGNED float scores[CELLS * LANES];
    ALIGNED float outputs[MAX_SETS][MAX_HEAD * LANES];
    ALIGNED float masks[MAX_SETS][CELLS * LANES];
    softmax_state states[MAX_SETS];
} float_memory;

VECTORS static void read_block(
    const shape *s, const tensor *t, const part *p, const job *work, int64_t cell, float *out) {
    for (int64_t i = 0; i < CELLS; i++, out += t->ne[0]) {
        if (cell + i < s->cells) {
            read_cell(t, work, cell + i, p->head, p->stream, t->ne[0], out);
        } else {
            memset(out, 0, (size_t)t->ne[0] * sizeof(float));
        }
    }
}

VECTORS static void score_floats(
    const float *keys, const float *queries, int64_t elements, float *scores) {
    for (int cell = 0; cell < CELLS; cell += SUMS) {
        lanes sums[SUMS];
        for (int i = 0; i < SUMS; i++) sums[i] = lanes_fill(0);
        const float *key = keys + cell * elements;
        for (int64_t e = 0; e < elements; e++) {
            const lanes both = lanes_load(queries + e * LANES);
            for (int i = 0; i < SUMS; i++) {
                sums[i] = lanes_multiply_add(lanes_fill(key[i * elements + e]), both, sums[i]);
            }
        }
        for (int i = 0; i < SUMS; i++) {
            lanes_store(scores + (cell + i) * LANES, sums[i]);
        }
    }
}

VECTORS static void add_floats(
    const float *values, const float *weights, int64_t elements, float *outputs) {
    for (int64_t e = 0; e < elements; e += SUMS) {
        lanes sums[SUMS];
        for (int i = 0; i < SUMS; i++) {
            sums[i] = lanes_load(outputs + (e + i) * LANES);
        }
        for (int cell = 0; cell < CELLS; cell++) {
            const lanes weight = lanes_load(weights + cell * LANES);
            const float *value = values + cell * elements + e;
            for (int i = 0; i < SUMS; i++) {
                sums[i] = lanes_multiply_add(lanes_fill(value[i]), weight, sums[i]);
            }
        }
        for (int i = 0; i < SUMS; i++) {
            lanes_store(outputs + (e + i) * LANES, sums[i]);
        }
    }
}

VECTORS static void read_queries(
    const shape *s, const part *p, int set, lanes scale, float *out) {
    const char *from = query(s, p, set);
    const int count = queries_of(p, set);
    for (int64_t e = 0; e < s->key; e += LANES) {
        lanes rows[LANES];
        for (int i = 0; i < LANES; i++) {
            const float *row = (const float *)(from + (int64_t)s->q->nb[1] * i) + e;
            rows[i] = i < count ? lanes_multiply(lanes_load(row), scale) : lanes_fill(0);
        }
        lanes_transpose(rows);
        for (int i = 0; i < LANES; i++) lanes_store(out + (e + i) * LANES, rows[i]);
    }
}

VECTORS static void attend_part_floats(
    const shape *s, tensor *result, const job *work, int number, float_memory *m) {
    const part p = part_of(s, number);
    const lanes scale = lanes_fill(s->scale * 1.44269504f);  // scores in powers of two
    for (int set = 0; set < p.sets; set++) {
        read_queries(s, &p, set, scale, m->queries[set]);
        memset(m->outputs[set], 0, (size_t)s->value * LANES * sizeof(float));
        m->states[set].largest = lanes_fill(-INFINITY);
        m->states[set].sum = lanes_fill(0);
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

VECTORS static void attend_floats(const shape *s, tensor *result, job *work, int parts) {
    float_memory memory;
    int number;
    while ((number = atomic_fetch_add(&work->next, 1)) < parts) {
        attend_part_floats(s, result, work, number, &memory);
    }
}
