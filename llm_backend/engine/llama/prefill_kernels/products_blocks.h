// Products of 8 bits in blocks of 32, for a file that defines before what its instructions do:
//
// - `lanes` and its functions, of a header lanes_*.h
// - `integers`, sums of 16 rows, and `packed_number`, an activation as `add_products` reads it
// - ZERO, the packed number of 0
// - TOKENS that are multiplied with a panel at once, STEP columns of a call of `add_products`
// - PART_COLUMNS at most of a part of a panel, so that it stays in a cache

#pragma once

#include "products.h"

enum { STEPS = BLOCK / STEP };

// Weights of 16 rows, interleaved: those of a step follow each other.
typedef struct panel {
    ALIGNED integers weights[PART_COLUMNS / BLOCK][STEPS];
    ALIGNED integers offsets[PART_COLUMNS / BLOCK];  // what sums of products begin with
    ALIGNED float scales[PART_COLUMNS / BLOCK][LANES];
    int8_t rounded[LANES][PART_COLUMNS];  // weights of other types, before they are interleaved
} panel;

// Round the activations of `TOKENS` tokens, with a scale for each block. Layout:
// [blocks][tokens][32], then scales, [blocks][tokens].
VECTORS static void round_tokens(
    const float *from, int64_t columns, int tokens, packed_number *numbers, float *scales) {
    static const float zeros[BLOCK];
    for (int64_t block = 0; block < columns / BLOCK; block++) {
        for (int token = 0; token < TOKENS; token++, numbers += BLOCK, scales++) {
            const float *at = token < tokens ? from + token * columns + block * BLOCK : zeros;
            const float largest = largest_of(lanes_load(at), lanes_load(at + LANES));
            round_block(at, largest > 0 ? 127 / largest : 0, numbers);
            // rounded to half precision as in ggml, so that both compute the same products
            *scales = _cvtsh_ss(_cvtss_sh(largest / 127, _MM_FROUND_TO_NEAREST_INT));
        }
    }
}

// Round 16 rows of another type than Q8_0 to 8 bits, with a scale for each block.
VECTORS static void round_weights(
    const tensor *weights, int64_t row, int64_t first, int64_t blocks, panel *to) {
    ALIGNED float values[PART_COLUMNS];
    const type_traits *traits = ggml->get_type_traits(weights->type);
    const int64_t offset = first * BLOCK / traits->block_elements * (int64_t)traits->block_bytes;
    for (int i = 0; i < LANES; i++) {
        if (row + i < weights->ne[1]) {
            const char *at = (const char *)weights->data + (row + i) * (int64_t)weights->nb[1];
            traits->to_float(at + offset, values, blocks * BLOCK);
        } else {
            memset(values, 0, (size_t)blocks * BLOCK * sizeof *values);
        }
        for (int64_t block = 0; block < blocks; block++) {
            packed_number numbers[BLOCK];
            const float *from = values + block * BLOCK;
            const float largest = largest_of(lanes_load(from), lanes_load(from + LANES));
            round_block(from, largest > 0 ? 127 / largest : 0, numbers);
            int8_t *rounded = to->rounded[i] + block * BLOCK;
            for (int k = 0; k < BLOCK; k++) rounded[k] = (int8_t)(numbers[k] - ZERO);
            to->scales[block][i] = largest / 127;
        }
    }
}

// Interleave blocks of 16 rows.
VECTORS static void interleave_panel(
    const tensor *weights, int64_t row, int64_t first, int64_t blocks, panel *to) {
    static const char zeros[BLOCK_BYTES];
    const int64_t rows = weights->ne[1];
    const bool is_rounded = weights->type != TYPE_Q8_0;
    if (is_rounded) round_weights(weights, row, first, blocks, to);
    for (int64_t block = 0; block < blocks; block++) {
        const char *numbers[LANES];
        uint16_t halves[LANES];
        for (int i = 0; i < LANES; i++) {
            if (is_rounded) {
                numbers[i] = (const char *)to->rounded[i] + block * BLOCK;
                continue;
            }
            const char *at = (const char *)weights->data + (row + i) * (int64_t)weights->nb[1] +
                             (first + block) * BLOCK_BYTES;
            if (row + i >= rows) at = zeros;
            memcpy(&halves[i], at, 2);
            numbers[i] = at + 2;
        }
        to->offsets[block] = interleave_block(numbers, to->weights[block]);
        if (!is_rounded) lanes_store(to->scales[block], lanes_from_halves(halves));
    }
}

// Add the products of a panel's blocks and of `TOKENS` tokens to the result, or begin with them.
VECTORS static void multiply_tokens(
    const panel *with, int64_t blocks, const packed_number *numbers, const float *scales,
    float *result, int64_t row_floats, int tokens, int rows, bool is_first) {
    lanes sums[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        const bool adds = !is_first && t < tokens;
        sums[t] = adds ? load_rows(result + t * row_floats, rows) : lanes_fill(0);
    }
    for (int64_t block = 0; block < blocks; block++) {
        integers products[TOKENS];
        for (int t = 0; t < TOKENS; t++) products[t] = with->offsets[block];
#pragma GCC unroll 4  // otherwise sums are copied from register to register
        for (int step = 0; step < STEPS; step++) {
            const integers weights = load_integers(&with->weights[block][step]);
            for (int t = 0; t < TOKENS; t++) {
                products[t] = add_products(products[t], numbers + t * BLOCK + step * STEP, weights);
            }
        }
        const lanes scale = lanes_load(with->scales[block]);
        for (int t = 0; t < TOKENS; t++) {
            const lanes both = lanes_multiply(scale, lanes_fill(scales[t]));
            sums[t] = lanes_multiply_add(to_lanes(products[t]), both, sums[t]);
        }
        numbers += TOKENS * BLOCK;
        scales += TOKENS;
    }
    for (int t = 0; t < tokens; t++) store_rows(result + t * row_floats, sums[t], rows);
}

VECTORS static void multiply_panel(
    const tensor *result, const packed_number *numbers, const float *scales, int64_t row,
    panel *memory) {
    const tensor *weights = result->src[0];
    const int64_t columns = weights->ne[0], rows = weights->ne[1], tokens = token_count(result);
    const int count = rows - row < LANES ? (int)(rows - row) : LANES;
    const int64_t all = columns / BLOCK;
    for (int64_t first = 0; first < all; first += PART_COLUMNS / BLOCK) {
        const int64_t left = all - first;
        const int64_t blocks = left < PART_COLUMNS / BLOCK ? left : PART_COLUMNS / BLOCK;
        interleave_panel(weights, row, first, blocks, memory);
        for (int64_t token = 0; token < tokens; token += TOKENS) {
            multiply_tokens(
                memory, blocks, numbers + token * columns + first * BLOCK * TOKENS,
                scales + token * all + first * TOKENS,
                (float *)result->data + token * rows + row, rows,
                tokens - token < TOKENS ? (int)(tokens - token) : TOKENS, count, first == 0);
        }
    }
}

static size_t packed_bytes_blocks(int64_t columns, int64_t tokens) {
    const size_t block_bytes = BLOCK * sizeof(packed_number) + sizeof(float);
    return (size_t)(round_up(tokens, TOKENS) * (columns / BLOCK)) * block_bytes;
}

VECTORS static void multiply_blocks(tensor *result, job *work) {
    panel memory;
    const tensor *values = result->src[1];
    const int64_t columns = values->ne[0], tokens = token_count(result);
    const int groups = (int)((tokens + TOKENS - 1) / TOKENS);
    packed_number *numbers = (packed_number *)work->packed;
    float *scales = (float *)(numbers + (int64_t)groups * TOKENS * columns);
    int part;
    while ((part = atomic_fetch_add(&work->next_packed, 1)) < groups) {
        const int64_t token = (int64_t)part * TOKENS;
        const int count = tokens - token < TOKENS ? (int)(tokens - token) : TOKENS;
        round_tokens(
            (const float *)values->data + token * columns, columns, count,
            numbers + token * columns, scales + token * (columns / BLOCK));
        atomic_fetch_add_explicit(&work->done_packed, 1, memory_order_release);
    }
    await_parts(&work->done_packed, groups);
    const int64_t panels = (result->ne[0] + LANES - 1) / LANES;
    while ((part = atomic_fetch_add(&work->next, 1)) < panels) {
        multiply_panel(result, numbers, scales, (int64_t)part * LANES, &memory);
    }
}
