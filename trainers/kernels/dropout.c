/* Dropout with masks that are drawn again instead of stored. */
#include "common.h"
#include "random.h"

#define ROW 1024 /* numbers that share a key */

VECTORISED static void drop_row(const float *restrict x, int64_t n, row_key key, uint32_t threshold, float scale,
                                float *restrict out) {
    int64_t half = (n + 1) / 2;
#pragma omp simd
    for (int64_t j = 0; j < n / 2; j++) {
        uint32_t h = draw(key, (uint32_t)j);
        out[j] = (h & 0xFFFF) >= threshold ? x[j] * scale : 0.0f;
        out[j + half] = (h >> 16) >= threshold ? x[j + half] * scale : 0.0f;
    }
    if (n % 2) out[half - 1] = (draw(key, (uint32_t)(half - 1)) & 0xFFFF) >= threshold ? x[half - 1] * scale : 0.0f;
}

/* out (n) = x (n), each number 0 with probability threshold / 65536 and times `scale` otherwise */
void dropout(const float *x, int64_t n, uint64_t seed, uint32_t threshold, float scale, float *out) {
#pragma omp parallel for schedule(static) if (n > SMALL)
    for (int64_t start = 0; start < n; start += ROW)
        drop_row(x + start, n - start < ROW ? n - start : ROW, key_of(seed, (uint64_t)(start / ROW)), threshold, scale,
                 out + start);
}
