// The shape of attention, and its division into parts, for all kinds of kernels.

#pragma once

#include "vectors.h"

enum {
    CELLS = 64,            // of a block
    MAX_HEAD = 256,        // elements of a head
    MAX_SETS = 16,         // of 16 queries, in a part
};

typedef struct shape {
    const tensor *q, *k, *v, *mask, *sinks;
    float scale;
    int64_t key, value;                // elements of a head
    int64_t key_rounded, value_rounded;
    int64_t tokens, cells, heads, shared_heads, streams;
    int64_t group;                     // heads that share their keys
    int64_t group_tokens, groups;      // tokens of a part, parts for each shared head
} shape;

typedef struct part {
    int64_t stream, head, from, to;  // the shared head, tokens
    int sets;                        // of 16 queries: sets of tokens for each head of the group
    int token_sets;
} part;

static inline part part_of(const shape *s, int number) {
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

static inline const char *query(const shape *s, const part *p, int set) {
    const int64_t head = p->head * s->group + set / p->token_sets;
    const int64_t token = p->from + set % p->token_sets * LANES;
    return (const char *)s->q->data + token * (int64_t)s->q->nb[1] +
           head * (int64_t)s->q->nb[2] + p->stream * (int64_t)s->q->nb[3];
}

static inline int queries_of(const part *p, int set) {
    const int64_t left = p->to - p->from - set % p->token_sets * LANES;
    return left < LANES ? (int)left : LANES;
}

// Compute parts of the work that no other thread has claimed.
void attend_avx2(const shape *s, tensor *result, job *work, int parts);
void attend_avx512(const shape *s, tensor *result, job *work, int parts);
void attend_bf16(const shape *s, tensor *result, job *work, int parts);
void attend_amx(const shape *s, tensor *result, job *work, int parts);
