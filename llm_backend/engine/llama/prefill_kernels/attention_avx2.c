// Attention with AVX2, in 32 bits.

#include "lanes_avx2.h"
#include "attention_floats.h"

VECTORS void attend_avx2(const shape *s, tensor *result, job *work, int parts) {
    attend_floats(s, result, work, parts);
}
