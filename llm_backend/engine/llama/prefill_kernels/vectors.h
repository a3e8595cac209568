// Steps that the kernels share: conversion to bfloat16, transposition, claiming of parts.

#pragma once

#include <immintrin.h>
#include <sched.h>
#include <string.h>

#include "kernels.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")))
#define BF16 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,f16c")))
#define AMX \
    __attribute__((target( \
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,f16c,amx-tile,amx-bf16")))
#define ALIGNED __attribute__((aligned(64)))

enum {
    LANES = 16,         // floats of a vector, rows of a tile
    TILE_K = 32,        // bfloat16 numbers of a tile's row
    TILE_BYTES = 1024,
};

// GCC's tile instructions do not say that they read memory
#define SETTLE_STORES() __asm__ volatile("" ::: "memory")

static inline int64_t round_up(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

// Wait until all `parts` are done; another thread may be preempted in the middle of one.
static inline void await_parts(atomic_int *done, int parts) {
    for (long spins = 0; atomic_load_explicit(done, memory_order_acquire) < parts; spins++) {
        if (spins < 10000) {
            _mm_pause();
        } else {
            sched_yield();
        }
    }
}

typedef struct __attribute__((packed)) tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

// All eight tiles have 16 rows of 64 bytes.
AMX static inline void open_tiles(void) {
    ALIGNED tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = LANES;
    }
    SETTLE_STORES();
    _tile_loadconfig(&config);
}

// 32 floats as bfloat16.
BF16 static inline __m512i pack_bf16(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Two vectors as pairs of bfloat16: the first one's number is the lower half of each pair.
BF16 static inline __m512i pair_bf16(__m512 first, __m512 second) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Transpose 16 rows of 16 numbers of 32 bits.
AVX512 static inline __attribute__((always_inline)) void transpose(__m512i r[LANES]) {
    __m512i t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {  // r[i + 4 * j]: columns i, i + 4, ... of rows 4 * j and on
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// Write `rows` rows of floats, `stride` floats apart and `count` long, as tiles that multiply from
// the right: tile k holds columns 32 k to 32 k + 31, as pairs, of all rows. Missing numbers are 0.
BF16 static inline void pack_right_tiles(
    char *tiles, const char *values, size_t stride_bytes, int rows, int64_t count, __m512 scale) {
    for (int64_t k = 0; k < count; k += TILE_K, tiles += TILE_BYTES) {
        __m512i pairs[LANES];
        const int64_t left = count - k;
        const __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        const __mmask16 high =
            left >= 32 ? 0xffff : left <= 16 ? 0 : (__mmask16)((1u << (left - 16)) - 1);
        for (int row = 0; row < LANES; row++) {
            if (row >= rows) {
                pairs[row] = _mm512_setzero_si512();
                continue;
            }
            const float *at = (const float *)(values + row * stride_bytes) + k;
            const __m512 first = _mm512_maskz_loadu_ps(low, at);
            const __m512 second = _mm512_maskz_loadu_ps(high, at + 16);
            pairs[row] = pack_bf16(_mm512_mul_ps(first, scale), _mm512_mul_ps(second, scale));
        }
        transpose(pairs);
        for (int row = 0; row < LANES; row++) _mm512_store_si512(tiles + 64 * row, pairs[row]);
    }
}
