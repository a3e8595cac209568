// What these kernels know of ggml 0.25.3: the beginning of structs that its shared libraries use and
// that no installed header declares. `install` in hook.c checks them before anything depends on them.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GGML_DIMS = 4, GGML_SOURCES = 10, GGML_PARAMS = 16 };

// element types, as numbered in GGUF files
enum {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q8_0 = 8,
    TYPE_BF16 = 30,
};

typedef struct tensor {
    int type;
    void *buffer;
    int64_t ne[GGML_DIMS];  // elements in each dimension, the fastest one first
    size_t nb[GGML_DIMS];   // bytes from one element of a dimension to the next
    int op;
    int32_t op_params[GGML_PARAMS];
    int32_t flags;
    struct tensor *src[GGML_SOURCES];
    struct tensor *view_src;
    size_t view_offs;
    void *data;
} tensor;

typedef void (*custom_function)(tensor *result, int thread, int threads, void *context);

// parameters of an operation of type "CUSTOM"
typedef struct custom_params {
    custom_function function;
    int tasks;
    void *context;
} custom_params;

typedef void (*to_float_function)(const void *row, float *values, int64_t count);

typedef struct type_traits {
    const char *name;
    int64_t block_elements;
    int64_t interleaved_elements;
    size_t block_bytes;
    bool is_quantized;
    to_float_function to_float;
} type_traits;

typedef struct backend {
    void *guid;
    const char *(*get_name)(struct backend *);
    void *others[11];
    int (*graph_compute)(struct backend *, void *graph);
} backend;

typedef struct device {
    const char *(*get_name)(struct device *);
    void *others[4];
    backend *(*init_backend)(struct device *, const char *params);
} device;

// public functions of the loaded libraries, looked up by name by kernel_library.py in this order
typedef struct ggml_functions {
    const char *(*op_name)(int op);
    const type_traits *(*get_type_traits)(int type);
    int (*graph_node_count)(void *graph);
    tensor *(*graph_node)(void *graph, int index);
    bool (*buffer_is_host)(void *buffer);
    const char *(*device_name)(device *);
    backend *(*device_init)(device *, const char *params);
    void (*backend_free)(backend *);
    const char *(*backend_name)(backend *);
} ggml_functions;
