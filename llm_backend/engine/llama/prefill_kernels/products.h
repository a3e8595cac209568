// What products of all kinds of kernels share.

#pragma once

#include "vectors.h"

enum {
    BLOCK = 32,           // weights with one scale, of Q8_0
    BLOCK_BYTES = 34,     // a scale in half precision, 32 numbers of 8 bits
    PANEL_COLUMNS = 768,  // at most, of a part of a panel, with AMX
};

static inline int64_t token_count(const tensor *result) {
    return result->ne[1] * result->ne[2] * result->ne[3];
}

// Bytes of the packed activations, and products with the other threads, for each kind of kernel.
size_t packed_bytes_avx2(int64_t columns, int64_t tokens);
size_t packed_bytes_vnni(int64_t columns, int64_t tokens);
size_t packed_bytes_amx(int64_t columns, int64_t tokens);
void multiply_avx2(tensor *result, job *work);
void multiply_vnni(tensor *result, job *work);
void multiply_amx(tensor *result, job *work);
