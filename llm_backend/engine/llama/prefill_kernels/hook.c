// The hook on ggml's CPU backend: each backend that its device creates has `graph_compute` replaced
// by a function that turns the operations which these kernels compute into custom operations for as
// long as the graph is computed. ggml's own threads then run them, between its own barriers, and all
// other operations stay as they are.

#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { MAX_JOBS = 4096, ALL_THREADS = -1, ALIGNMENT = 64, PRODUCT = 0, ATTENTION = 1 };

const ggml_functions *ggml;

static ggml_functions functions;
static device *hooked;
static backend *(*original_init)(device *, const char *);
static int (*original_compute)(backend *, void *);
static int product_op = -1, attention_op = -1, custom_op = -1;
static atomic_int highest_level;
static atomic_long computed[2];

// of the graph that is computed; another one, computed at the same time, is left to ggml
static atomic_flag is_busy = ATOMIC_FLAG_INIT;
static job jobs[MAX_JOBS];
static int job_count;
static char *packed;
static size_t packed_size;

// The buffer for packed activations grows to `size`; without memory it stays as it is, because
// operations that are replaced already need it.
static bool reserve_packed(size_t size) {
    if (size <= packed_size) return true;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *grown = aligned_alloc(ALIGNMENT, size);
    if (grown == NULL) return false;
    free(packed);
    packed = grown;
    packed_size = size;
    return true;
}

static void replace(tensor *node, vector_level level) {
    const int kind = node->op == product_op ? PRODUCT : ATTENTION;
    const tensor *source = node->src[kind];  // weights, or keys
    job *work = &jobs[job_count++];
    const custom_params params = {kind == PRODUCT ? multiply : attend, ALL_THREADS, work};
    work->result = node;
    work->op = node->op;
    work->level = level;
    work->to_float = ggml->get_type_traits(source->type)->to_float;
    atomic_store(&work->next_packed, 0);
    atomic_store(&work->done_packed, 0);
    atomic_store(&work->next, 0);
    memcpy(work->op_params, node->op_params, sizeof node->op_params);
    memcpy(node->op_params, &params, sizeof params);
    node->op = custom_op;
    atomic_fetch_add(&computed[kind], 1);
}

// Replace the operations that fit `level`; those whose packed activations find no memory stay.
static void replace_operations(void *graph, vector_level highest) {
    const int nodes = ggml->graph_node_count(graph);
    for (int i = 0; i < nodes && job_count < MAX_JOBS; i++) {
        tensor *node = ggml->graph_node(graph, i);
        vector_level level = NO_VECTORS;
        if (node->op == product_op) {
            level = product_level(node, highest);
            if (level != NO_VECTORS && !reserve_packed(packed_bytes(node, level))) continue;
        } else if (node->op == attention_op) {
            level = attention_level(node, highest);
        }
        if (level != NO_VECTORS) replace(node, level);
    }
    for (int i = 0; i < job_count; i++) jobs[i].packed = packed;
}

static void restore_operations(void) {
    for (; job_count > 0; job_count--) {
        const job *work = &jobs[job_count - 1];
        work->result->op = work->op;
        memcpy(work->result->op_params, work->op_params, sizeof work->op_params);
    }
}

static int compute(backend *of, void *graph) {
    const vector_level highest = (vector_level)atomic_load(&highest_level);
    if (highest == NO_VECTORS || atomic_flag_test_and_set(&is_busy)) {
        return original_compute(of, graph);
    }
    replace_operations(graph, highest);
    const int status = original_compute(of, graph);
    restore_operations();
    atomic_flag_clear(&is_busy);
    return status;
}

static backend *init_backend(device *of, const char *params) {
    backend *made = original_init(of, params);
    if (made != NULL) {
        original_compute = made->graph_compute;
        made->graph_compute = compute;
    }
    return made;
}

static int find_op(const char *name) {
    for (int op = 0;; op++) {
        const char *known = ggml->op_name(op);
        if (strcmp(known, name) == 0) return op;
    }
}

// What this processor can run: 0 nothing of this, 1 AVX2, 2 AVX-512 VNNI as well, 3 bfloat16 as well,
// 4 AMX as well.
int llm_backend_prefill_level(void) { return (int)find_vector_level(); }

// Let kernels up to a level compute; 0 leaves all to ggml.
void llm_backend_prefill_set_level(int highest) {
    const int found = (int)find_vector_level();
    atomic_store(&highest_level, highest < found ? highest : found);
}

// Operations that these kernels have computed: 0 products, 1 attention.
long llm_backend_prefill_computed(int kind) { return atomic_load(&computed[kind]); }

// Install the hook on a device; false if its struct is not laid out as assumed. Backends that exist
// already are left alone.
bool llm_backend_prefill_install(const ggml_functions *given, device *of) {
    if (hooked != NULL) return hooked == of;
    functions = *given;
    ggml = &functions;
    if (strcmp(of->get_name(of), ggml->device_name(of)) != 0) return false;
    product_op = find_op("MUL_MAT");
    attention_op = find_op("FLASH_ATTN_EXT");
    custom_op = find_op("CUSTOM");
    original_init = of->init_backend;
    of->init_backend = init_backend;
    backend *probe = ggml->device_init(of, NULL);
    const bool is_hooked = probe != NULL && probe->graph_compute == compute &&
                           strcmp(probe->get_name(probe), ggml->backend_name(probe)) == 0;
    if (probe != NULL) ggml->backend_free(probe);
    if (is_hooked) {
        hooked = of;
    } else {
        of->init_backend = original_init;
    }
    return is_hooked;
}
