// What this processor can run.

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels.h"

enum { REQUEST_STATE_PERMISSION = 0x1023, TILE_DATA = 18 };

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool has_avx512_vnni(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
}

static bool has_amx(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool has_tiles = d >> 24 & 1, has_bf16_tiles = d >> 22 & 1;
    if (!has_tiles || !has_bf16_tiles) return false;
    return syscall(SYS_arch_prctl, REQUEST_STATE_PERMISSION, TILE_DATA) == 0;
}

vector_level find_vector_level(void) {
    static vector_level found;
    static bool is_known;
    if (!is_known) {
        found = !has_avx2()          ? NO_VECTORS
                : !has_avx512_vnni() ? VECTORS_AVX2
                : !has_avx512_bf16() ? VECTORS_VNNI
                : !has_amx()         ? VECTORS_BF16
                                     : VECTORS_AMX;
        is_known = true;
    }
    return found;
}
