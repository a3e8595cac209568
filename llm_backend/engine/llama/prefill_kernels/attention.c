// Attention of many tokens: softmax(scale * queries * keys + mask) * values, for each head.
//
// A part of the work is a group of tokens of all heads that share their keys. It reads the cells in
// blocks of 64 and keeps the largest score and the sum of weights of each query, as in
// "flash" attention. Sixteen queries lie side by side, so that scores, [cells][queries], are
// compared and added without exchanging numbers between lanes. With AMX or AVX-512's instructions
// for bfloat16, queries, keys, values and weights are rounded to bfloat16; otherwise all is computed
// in 32 bits.

#include "attention.h"

enum { LEAST_TOKENS = 16 };  // of each sequence

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

void attend(tensor *result, int thread, int threads, void *context) {
    (void)thread;
    job *work = context;
    const shape s = shape_of(result, work->op_params, threads);
    const int parts = (int)(s.groups * s.shared_heads * s.streams);
    if (work->level == VECTORS_AMX) {
        attend_amx(&s, result, work, parts);
    } else if (work->level == VECTORS_BF16) {
        attend_bf16(&s, result, work, parts);
    } else if (work->level == VECTORS_VNNI) {
        attend_avx512(&s, result, work, parts);
    } else {
        attend_avx2(&s, result, work, parts);
    }
}
