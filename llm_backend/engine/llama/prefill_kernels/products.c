// Products of quantized weights with activations of many tokens: result[token][row] is the scalar
// product of a row of weights and the activations of a token.
//
// With AMX, weights are expanded to bfloat16, a panel of 32 rows at a time, and activations are
// rounded to it. With VNNI, activations are rounded to 8 bits in blocks of 32, as ggml does, and
// weights of type Q8_0 are interleaved, a panel of 16 rows at a time. A panel is multiplied with
// all tokens while it is in the cache, so that packing it costs little if there are many.

#include "vectors.h"

enum {
    BLOCK = 32,                  // weights with one scale, of Q8_0
    BLOCK_BYTES = 34,            // a scale in half precision, 32 numbers of 8 bits
    PANEL_ROWS = 32,             // of weights, with AMX
    PANEL_COLUMNS = 768,         // at most, of a part of a panel, with AMX
    GROUP_TOKENS = 256,          // of which sums are kept while a panel's parts follow each other
    VNNI_COLUMNS = 2048,         // at most, of a part of a panel, with VNNI
    VNNI_TOKENS = 8,             // multiplied with a panel at once
    MAX_COLUMNS = 1 << 20,
    LEAST_TOKENS_AMX = 48,       // of one pass: with fewer, other kernels were measured to be faster
    LEAST_TOKENS_VNNI = 4,
    PRECISION = 0,               // parameters of a product
    HINT = 1,
};

static int64_t token_count(const tensor *result) {
    return result->ne[1] * result->ne[2] * result->ne[3];
}

static bool is_plain(const tensor *t, size_t size) {  // rows follow each other
    return t->nb[0] == size && t->nb[1] == t->nb[0] * (size_t)t->ne[0] &&
           t->nb[2] == t->nb[1] * (size_t)t->ne[1] && t->nb[3] == t->nb[2] * (size_t)t->ne[2];
}

static bool is_in_host_memory(const tensor *weights) {
    void *buffer = weights->view_src != NULL ? weights->view_src->buffer : weights->buffer;
    return buffer != NULL && ggml->buffer_is_host(buffer);
}

static bool has_known_layout(const tensor *result) {
    const tensor *weights = result->src[0], *values = result->src[1];
    const type_traits *traits = ggml->get_type_traits(weights->type);
    const int64_t columns = weights->ne[0], block = traits->block_elements;
    if (result->type != TYPE_F32 || values->type != TYPE_F32) return false;
    if (columns % BLOCK != 0 || columns % block != 0 || columns > MAX_COLUMNS) return false;
    if (weights->nb[0] != traits->block_bytes || weights->ne[2] * weights->ne[3] != 1) return false;
    if (weights->nb[1] != (size_t)(columns / block) * traits->block_bytes) return false;
    return is_plain(result, sizeof(float)) && is_plain(values, sizeof(float));
}

static vector_level level_for_type(const tensor *result, vector_level highest) {
    const int type = result->src[0]->type;
    const type_traits *traits = ggml->get_type_traits(type);
    const int64_t tokens = token_count(result);
    // a wish for 32 bits is met by what ggml itself does
    const bool takes_bf16 = highest == VECTORS_AMX && result->op_params[PRECISION] == 0 &&
                            PANEL_COLUMNS % traits->block_elements == 0;
    if (type == TYPE_Q8_0) {
        if (takes_bf16 && tokens >= LEAST_TOKENS_AMX) return VECTORS_AMX;
        return tokens >= LEAST_TOKENS_VNNI ? VECTORS_VNNI : NO_VECTORS;
    }
    if (!takes_bf16 || tokens < LEAST_TOKENS_AMX) return NO_VECTORS;
    if (type != TYPE_BF16 && !(traits->is_quantized && traits->to_float != NULL)) return NO_VECTORS;
    return VECTORS_AMX;
}

vector_level product_level(const tensor *result, vector_level highest) {
    if (highest == NO_VECTORS || result->op_params[HINT] != 0) return NO_VECTORS;
    if (!has_known_layout(result) || !is_in_host_memory(result->src[0])) return NO_VECTORS;
    return level_for_type(result, highest);
}

size_t packed_bytes(const tensor *result, vector_level level) {
    const int64_t columns = result->src[0]->ne[0], tokens = token_count(result);
    if (level == VECTORS_AMX) return (size_t)(round_up(tokens, 2 * LANES) * columns * 2);
    const int64_t rounded = round_up(tokens, VNNI_TOKENS);
    return (size_t)(rounded * columns + rounded * (columns / BLOCK) * (int64_t)sizeof(float));
}

// AMX

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

AMX static void multiply_amx(tensor *result, job *work) {
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

// VNNI

// Round 8 tokens' activations to numbers from 1 to 255, 128 for 0, with a scale for each block.
// Layout: [blocks][tokens][32], then scales, [blocks][tokens].
AVX512 static void round_tokens(
    const float *from, int64_t columns, int tokens, uint8_t *numbers, float *scales) {
    for (int64_t block = 0; block < columns / BLOCK; block++) {
        for (int token = 0; token < VNNI_TOKENS; token++) {
            uint8_t *to = numbers + (block * VNNI_TOKENS + token) * BLOCK;
            float *scale = scales + block * VNNI_TOKENS + token;
            if (token >= tokens) {
                memset(to, 128, BLOCK);
                *scale = 0;
                continue;
            }
            const float *at = from + token * columns + block * BLOCK;
            const __m512 low = _mm512_loadu_ps(at), high = _mm512_loadu_ps(at + LANES);
            const float largest =
                _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127 / largest : 0);
            // rounded to half precision as in ggml, so that both compute the same products
            *scale = _cvtsh_ss(_cvtss_sh(largest / 127, _MM_FROUND_TO_NEAREST_INT));
            const __m128i bytes[2] = {
                _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse))),
                _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)))};
            const __m128i flip = _mm_set1_epi8((char)128);
            _mm_storeu_si128((__m128i *)to, _mm_xor_si128(bytes[0], flip));
            _mm_storeu_si128((__m128i *)(to + LANES), _mm_xor_si128(bytes[1], flip));
        }
    }
}

typedef struct vnni_panel {
    ALIGNED int8_t weights[VNNI_COLUMNS / BLOCK][BLOCK / 4][LANES][4];
    ALIGNED int32_t offsets[VNNI_COLUMNS / BLOCK][LANES];  // -128 times the sums of weights
    ALIGNED float scales[VNNI_COLUMNS / BLOCK][LANES];
} vnni_panel;

// Interleave blocks of 16 rows of Q8_0.
AVX512 static void interleave_panel(
    const tensor *weights, int64_t row, int64_t first, int64_t blocks, vnni_panel *panel) {
    static const char zeros[BLOCK_BYTES];
    const int64_t rows = weights->ne[1];
    const __m512i ones = _mm512_set1_epi8(1);
    for (int64_t block = 0; block < blocks; block++) {
        __m512i numbers[LANES];
        ALIGNED uint16_t halves[LANES];
        for (int i = 0; i < LANES; i++) {
            const char *at = (const char *)weights->data + (row + i) * (int64_t)weights->nb[1] +
                             (first + block) * BLOCK_BYTES;
            if (row + i >= rows) at = zeros;
            memcpy(&halves[i], at, 2);
            numbers[i] =
                _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(at + 2)));
        }
        transpose(numbers);  // half of the columns are of no use
        __m512i sums = _mm512_setzero_si512();
        for (int i = 0; i < BLOCK / 4; i++) {
            _mm512_store_si512(panel->weights[block][i], numbers[i]);
            sums = _mm512_dpbusd_epi32(sums, ones, numbers[i]);
        }
        _mm512_store_si512(
            panel->offsets[block],
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7)));
        _mm512_store_ps(
            panel->scales[block], _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)halves)));
    }
}

// Add the products of a panel's blocks and 8 tokens to the result, or begin with them.
AVX512 static void multiply_tokens(
    const vnni_panel *panel, int64_t blocks, const uint8_t *numbers, const float *scales,
    float *result, int64_t row_floats, int tokens, __mmask16 rows, bool is_first) {
    __m512 sums[VNNI_TOKENS];
    for (int t = 0; t < VNNI_TOKENS; t++) {
        const bool adds = !is_first && t < tokens;
        sums[t] = adds ? _mm512_maskz_loadu_ps(rows, result + t * row_floats) : _mm512_setzero_ps();
    }
    for (int64_t block = 0; block < blocks; block++) {
        const __m512i offset = _mm512_load_si512(panel->offsets[block]);
        __m512i products[VNNI_TOKENS];
        for (int t = 0; t < VNNI_TOKENS; t++) products[t] = offset;
        for (int i = 0; i < BLOCK / 4; i++) {
            const __m512i weights = _mm512_load_si512(panel->weights[block][i]);
            for (int t = 0; t < VNNI_TOKENS; t++) {
                int32_t four;
                memcpy(&four, numbers + t * BLOCK + i * 4, sizeof four);
                products[t] =
                    _mm512_dpbusd_epi32(products[t], _mm512_set1_epi32(four), weights);
            }
        }
        const __m512 scale = _mm512_load_ps(panel->scales[block]);
        for (int t = 0; t < VNNI_TOKENS; t++) {
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[t]));
            sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t]), both, sums[t]);
        }
        numbers += VNNI_TOKENS * BLOCK;
        scales += VNNI_TOKENS;
    }
    for (int t = 0; t < VNNI_TOKENS; t++) {
        if (t < tokens) _mm512_mask_storeu_ps(result + t * row_floats, rows, sums[t]);
    }
}

AVX512 static void multiply_panel_vnni(
    const tensor *result, const uint8_t *numbers, const float *scales, int64_t row,
    vnni_panel *panel) {
    const tensor *weights = result->src[0];
    const int64_t columns = weights->ne[0], rows = weights->ne[1], tokens = token_count(result);
    const __mmask16 mask = rows - row >= LANES ? 0xffff : (__mmask16)((1u << (rows - row)) - 1);
    const int64_t all = columns / BLOCK;
    for (int64_t first = 0; first < all; first += VNNI_COLUMNS / BLOCK) {
        const int64_t left = all - first;
        const int64_t blocks = left < VNNI_COLUMNS / BLOCK ? left : VNNI_COLUMNS / BLOCK;
        interleave_panel(weights, row, first, blocks, panel);
        for (int64_t token = 0; token < tokens; token += VNNI_TOKENS) {
            const int count = tokens - token < VNNI_TOKENS ? (int)(tokens - token) : VNNI_TOKENS;
            multiply_tokens(
                panel, blocks, numbers + token * columns + first * BLOCK * VNNI_TOKENS,
                scales + token * all + first * VNNI_TOKENS,
                (float *)result->data + token * rows + row, rows, count, mask, first == 0);
        }
    }
}

AVX512 static void multiply_vnni(tensor *result, job *work) {
    vnni_panel panel;
    const tensor *values = result->src[1];
    const int64_t columns = values->ne[0], tokens = token_count(result);
    const int groups = (int)((tokens + VNNI_TOKENS - 1) / VNNI_TOKENS);
    uint8_t *numbers = (uint8_t *)work->packed;
    float *scales = (float *)(numbers + (int64_t)groups * VNNI_TOKENS * columns);
    int part;
    while ((part = atomic_fetch_add(&work->next_packed, 1)) < groups) {
        const int64_t token = (int64_t)part * VNNI_TOKENS;
        const int count = tokens - token < VNNI_TOKENS ? (int)(tokens - token) : VNNI_TOKENS;
        round_tokens(
            (const float *)values->data + token * columns, columns, count,
            numbers + token * columns, scales + token * (columns / BLOCK));
        atomic_fetch_add_explicit(&work->done_packed, 1, memory_order_release);
    }
    await_parts(&work->done_packed, groups);
    const int64_t panels = (result->ne[0] + LANES - 1) / LANES;
    while ((part = atomic_fetch_add(&work->next, 1)) < panels) {
        multiply_panel_vnni(result, numbers, scales, (int64_t)part * LANES, &panel);
    }
}

void multiply(tensor *result, int thread, int threads, void *context) {
    (void)thread;
    (void)threads;
    job *work = context;
    if (work->level == VECTORS_AMX) {
        multiply_amx(result, work);
    } else {
        multiply_vnni(result, work);
    }
}
