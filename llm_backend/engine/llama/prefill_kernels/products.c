// Products of quantized weights with activations of many tokens: result[token][row] is the scalar
// product of a row of weights and the activations of a token.
//
// With AMX, weights are expanded to bfloat16, a panel of 32 rows at a time, and activations are
// rounded to it. Otherwise activations are rounded to 8 bits in blocks of 32, as ggml does, and
// weights of type Q8_0 are interleaved, a panel of 16 rows at a time. A panel is multiplied with
// all tokens while it is in the cache, so that packing it costs little if there are many.

#include "products.h"

enum {
    MAX_COLUMNS = 1 << 20,
    LEAST_TOKENS_AMX = 48,  // of one pass: with fewer, other kernels were measured to be faster
    LEAST_TOKENS_VNNI = 4,
    LEAST_TOKENS_AVX2 = 8,
    LEAST_TOKENS_ROUNDED = 256,  // of weights that are rounded to 8 bits first
    PRECISION = 0,          // parameters of a product
    HINT = 1,
};

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
    const bool is_exact = result->op_params[PRECISION] != 0;
    const bool is_quantized = traits->is_quantized && traits->to_float != NULL;
    const bool fits_amx = (is_quantized || type == TYPE_BF16) &&
                          PANEL_COLUMNS % traits->block_elements == 0;
    if (highest == VECTORS_AMX && fits_amx && !is_exact && tokens >= LEAST_TOKENS_AMX) {
        return VECTORS_AMX;
    }
    if (type == TYPE_Q8_0) {
        if (highest >= VECTORS_VNNI) return tokens >= LEAST_TOKENS_VNNI ? VECTORS_VNNI : NO_VECTORS;
        return tokens >= LEAST_TOKENS_AVX2 ? VECTORS_AVX2 : NO_VECTORS;
    }
    const bool can_round = highest >= VECTORS_VNNI && is_quantized && !is_exact;
    return can_round && tokens >= LEAST_TOKENS_ROUNDED ? VECTORS_VNNI : NO_VECTORS;
}

vector_level product_level(const tensor *result, vector_level highest) {
    if (highest == NO_VECTORS || result->op_params[HINT] != 0) return NO_VECTORS;
    if (!has_known_layout(result) || !is_in_host_memory(result->src[0])) return NO_VECTORS;
    return level_for_type(result, highest);
}

size_t packed_bytes(const tensor *result, vector_level level) {
    const int64_t columns = result->src[0]->ne[0], tokens = token_count(result);
    return level == VECTORS_AMX    ? packed_bytes_amx(columns, tokens)
           : level == VECTORS_VNNI ? packed_bytes_vnni(columns, tokens)
                                   : packed_bytes_avx2(columns, tokens);
}

void multiply(tensor *result, int thread, int threads, void *context) {
    (void)thread;
    (void)threads;
    job *work = context;
    if (work->level == VECTORS_AMX) {
        multiply_amx(result, work);
    } else if (work->level == VECTORS_VNNI) {
        multiply_vnni(result, work);
    } else {
        multiply_avx2(result, work);
    }
}
