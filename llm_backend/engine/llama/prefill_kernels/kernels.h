// Kernels that replace ggml's own in passes of many tokens: products of quantized weights with
// activations, and attention. One operation is computed by all threads of ggml's pool at once; they
// share its `job` and claim parts of it.

#pragma once

#include <stdatomic.h>

#include "ggml_layout.h"

typedef enum { NO_VECTORS, VECTORS_AVX2, VECTORS_VNNI, VECTORS_BF16, VECTORS_AMX } vector_level;

typedef struct job {
    tensor *result;
    int op;                           // replaced in `result` meanwhile
    int32_t op_params[GGML_PARAMS];   // replaced as well
    vector_level level;
    to_float_function to_float;       // of the weights' or cells' type
    char *packed;                     // activations as the kernel reads them, shared by its threads
    atomic_int next_packed;           // next part of the activations that no thread has claimed
    atomic_int done_packed;           // parts that are packed
    atomic_int next;                  // next part of the result that no thread has claimed
} job;

// What this processor can run, as the operating system lets it; asks the system for AMX's tiles.
vector_level find_vector_level(void);

// What computes a product or attention, at most `highest`; NO_VECTORS if ggml's own kernel does.
vector_level product_level(const tensor *result, vector_level highest);
vector_level attention_level(const tensor *result, vector_level highest);

// Bytes of a product's packed activations.
size_t packed_bytes(const tensor *result, vector_level level);

// Compute an operation with the other threads; `context` is its job.
void multiply(tensor *result, int thread, int threads, void *context);
void attend(tensor *result, int thread, int threads, void *context);

extern const ggml_functions *ggml;
