// Products by the tiles of AMX, in bfloat16, for all quantized types.

#include "products.h"

enum {
    PANEL_ROWS = 32,     // of weights
    GROUP_TOKENS = 256,  // of which sums are kept while a panel's parts follow each other
};

AMX static void expand_q8(const char *row, int64_t first, int64_t count, uint16_t *to) {
    const char *block = row + first / BLOCK * BLOCK_BYTES;
    for (int64_t k = 0; k < count; k += BLOCK, block += BLOCK_BYTES) {
        uint16_t half;
        memcpy(&half, block, sizeof half);
        const __m512 scale = _mm512_set1_ps(_cvtsh_ss(half));
        const __m128i low = _mm_loadu_si128((const __m128i *)(block + 2));
        const __m128i high = _mm_loadu_si128((const __m128i *)(block + 18));
        const __m512 first_half = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low));
        const __m512 second_half = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high));
        _mm512_storeu_si512(
            to + k,
            pack_bf16(_mm512_mul_ps(first_half, scale), _mm512_mul_ps(second_half, scale)));
    }
}

AMX static void expand_any(
    const type_traits *traits, const char *row, int64_t first, int64_t count, uint16_t *to) {
    ALIGNED float values[PANEL_COLUMNS];
    const int64_t block = first / traits->block_elements;
    traits->to_float(row + block * (int64_t)traits->block_bytes, values, count);
    for (int64_t k = 0; k < count; k += TILE_K) {
        const __m512 low = _mm512_load_ps(values + k), high = _mm512_load_ps(values + k + LANES);
        _mm512_storeu_si512(to + k, pack_bf16(low, high));
    }
}

AMX static void expand_panel(
    const tensor *weights, int64_t row, int64_t first, int64_t count, uint16_t *panel) {
    const type_traits *traits = ggml->get_type_traits(weights->type);
    for (int i = 0; i < PANEL_ROWS; i++, panel += count) {
        if (row + i >= weights->ne[1]) {
            memset(panel, 0, (size_t)count * sizeof *panel);
            continue;
        }
        const char *from = (const char *)weights->data + (row + i) * (int64_t)weights->nb[1];
        if (weights->type == TYPE_Q8_0) {
            expand_q8(from, first, count, panel);
        } else if (weights->type == TYPE_BF16) {
            memcpy(panel, from + 2 * first, (size_t)count * 2);
        } else {
            expand_any(traits, from, first, count, panel);
        }
    }
}

// Add the products of a part of a panel and 32 tokens to four tiles of sums.
AMX static void multiply_tiles(
    const uint16_t *panel, int64_t count, const char *right, size_t right_step, float *sums,
    bool is_first) {
    const char *lower = (const char *)(panel + LANES * count), *upper = (const char *)panel;
    const size_t row_bytes = (size_t)count * 2;
    if (is_first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + 256, 64);
        _tile_loadd(2, sums + 512, 64);
        _tile_loadd(3, sums + 768, 64);
    }
    for (int64_t k = 0; k < count / TILE_K; k++) {
        _tile_loadd(4, upper + 64 * k, row_bytes);
        _tile_loadd(6, right + TILE_BYTES * k, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + right_step + TILE_BYTES * k, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, lower + 64 * k, row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
}

// Write a tile of sums, [rows of weights][tokens], into the result.
AMX static void write_sums(
    const float *sums, float *result, int64_t row_floats, int64_t tokens, int64_t rows) {
    if (tokens <= 0 || rows <= 0) return;
    __m512i values[LANES];
    for (int i = 0; i < LANES; i++) values[i] = _mm512_load_si512(sums + i * LANES);
    transpose(values);
    const __mmask16 mask = rows >= LANES ? 0xffff : (__mmask16)((1u << rows) - 1);
    const int count = tokens < LANES ? (int)tokens : LANES;
    for (int i = 0; i < LANES; i++) {
        if (i < count) _mm512_mask_storeu_epi32(result + i * row_floats, mask, values[i]);
    }
}

AMX static void multiply_panel_amx(
    const tensor *result, const char *packed, int64_t row, uint16_t *panel, float *sums) {
    const tensor *weights = result->src[0];
    const int64_t columns = weights->ne[0], tokens = token_count(result), rows = weights->ne[1];
    const int64_t parts = (columns + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    const int64_t block = ggml->get_type_traits(weights->type)->block_elements;
    const int64_t part = round_up((columns + parts - 1) / parts, block > TILE_K ? block : TILE_K);
    const size_t token_tile_bytes = (size_t)columns * 2 * LANES;
    for (int64_t begin = 0; begin < tokens; begin += GROUP_TOKENS) {
        const int64_t end = begin + GROUP_TOKENS < tokens ? begin + GROUP_TOKENS : tokens;
        for (int64_t first = 0; first < columns; first += part) {
            const int64_t count = first + part < columns ? part : columns - first;
            if (begin == 0 || parts > 1) expand_panel(weights, row, first, count, panel);
            SETTLE_STORES();
            for (int64_t token = begin; token < end; token += 2 * LANES) {
                const char *right = packed + (size_t)(token / LANES) * token_tile_bytes +
                                    (size_t)(first / TILE_K) * TILE_BYTES;
                float *at = sums + (token - begin) * PANEL_ROWS;
                multiply_tiles(panel, count, right, token_tile_bytes, at, first == 0);
            }
        }
        for (int64_t token = begin; token < end; token += LANES) {
            const float *at = sums + (token - begin) / 32 * 1024 + (token - begin) / 16 % 2 * 256;
            float *to = (float *)result->data + token * rows + row;
            write_sums(at, to, rows, end - token, rows - row);
            write_sums(at + 512, to + LANES, rows, end - token, rows - row - LANES);
        }
    }
}

AMX void multiply_amx(tensor *result, job *work) {
    ALIGNED uint16_t panel[PANEL_ROWS * PANEL_COLUMNS];
    ALIGNED float sums[PANEL_ROWS * GROUP_TOKENS];
    const tensor *values = result->src[1];
    const int64_t columns = values->ne[0], tokens = token_count(result);
    const int tiles = (int)(round_up(tokens, 2 * LANES) / LANES);
    int part;
    while ((part = atomic_fetch_add(&work->next_packed, 1)) < tiles) {
        const int64_t token = (int64_t)part * LANES;
        const int rows = tokens - token < LANES ? (int)(tokens - token) : LANES;
        const char *from = (const char *)values->data + token * columns * 4;
        char *to = work->packed + (size_t)part * (size_t)columns * 2 * LANES;
        pack_right_tiles(to, from, (size_t)columns * 4, rows, columns, _mm512_set1_ps(1));
        atomic_fetch_add_explicit(&work->done_packed, 1, memory_order_release);
    }
    await_parts(&work->done_packed, tiles);
    open_tiles();
    const int64_t panels = (result->ne[0] + PANEL_ROWS - 1) / PANEL_ROWS;
    while ((part = atomic_fetch_add(&work->next, 1)) < panels) {
        multiply_panel_amx(result, work->packed, (int64_t)part * PANEL_ROWS, panel, sums);
    }
    _tile_release();
}

size_t packed_bytes_amx(int64_t columns, int64_t tokens) {
    return (size_t)(round_up(tokens, 2 * LANES) * columns * 2);
}
