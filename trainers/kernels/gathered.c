/* Scores of gathered candidates, and their gradients, without temporaries: sum |q - e|, |q - e|, or the product q . e.

   Training compares, for each of `rows` positives, two queries (side 0 asks for a tail, side 1 for a head) with `count`
   candidates, each of which names its side. Vectors have d numbers. Each output number is written by one thread that
   adds in a fixed order, so results do not depend on how many threads run. */
#include <math.h>
#include <string.h>

#include "common.h"

enum { SUM_OF_SIZES = 1, LENGTH = 2, PRODUCT = 3 };

static inline float compared(int kind, const float *restrict q, const float *restrict e, int64_t d) {
    float sum = 0;
    if (kind == SUM_OF_SIZES) {
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < d; j++) sum += fabsf(q[j] - e[j]);
    } else if (kind == LENGTH) {
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < d; j++) sum += (q[j] - e[j]) * (q[j] - e[j]);
        sum = sqrtf(sum);
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < d; j++) sum += q[j] * e[j];
    }
    return sum;
}

/* to += weight times the slope of compared(a, b) by a. Of a length, `weight` is divided by it already. */
static inline void add_slope(int kind, const float *restrict a, const float *restrict b, float weight, int64_t d,
                             float *restrict to) {
    if (kind == SUM_OF_SIZES) {
#pragma omp simd
        for (int64_t j = 0; j < d; j++) {
            float by = a[j] - b[j];
            to[j] += weight * (by > 0 ? 1.0f : by < 0 ? -1.0f : by); /* 0 stays 0, and NaN NaN */
        }
    } else if (kind == LENGTH) {
#pragma omp simd
        for (int64_t j = 0; j < d; j++) to[j] += weight * (a[j] - b[j]);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < d; j++) to[j] += weight * b[j];
    }
}

VECTORISED static void row_scores(int kind, const float *restrict query, const float *restrict entity,
                                  const int64_t *restrict candidate, const uint8_t *restrict side, int64_t count,
                                  int64_t d, float *restrict out) {
    for (int64_t k = 0; k < count; k++)
        out[k] = compared(kind, query + (side[k] ? d : 0), entity + candidate[k] * d, d);
}

VECTORISED static void query_gradient(int kind, const float *restrict query, const float *restrict entity,
                                      const int64_t *restrict candidate, const uint8_t *restrict side,
                                      const float *restrict weight, int64_t count, int64_t d, float *restrict to) {
    memset(to, 0, sizeof(float) * 2 * d);
    for (int64_t k = 0; k < count; k++) {
        int64_t at = side[k] ? d : 0;
        add_slope(kind, query + at, entity + candidate[k] * d, weight[k], d, to + at);
    }
}

VECTORISED static void entity_gradient(int kind, const float *restrict query, const float *restrict entity,
                                       const uint8_t *restrict side, const float *restrict weight,
                                       const int64_t *restrict pair, int64_t pairs, int64_t count, int64_t d,
                                       float *restrict to) {
    memset(to, 0, sizeof(float) * d);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t p = pair[i];
        add_slope(kind, entity, query + (2 * (p / count) + (side[p] != 0)) * d, weight[p], d, to);
    }
}

/* query (rows, 2, d), entity (n, d), candidate and side (rows, count) -> out (rows, count) */
void gathered_scores(int kind, const float *query, const float *entity, const int64_t *candidate, const uint8_t *side,
                     int64_t rows, int64_t count, int64_t d, float *out) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t b = 0; b < rows; b++)
        row_scores(kind, query + b * 2 * d, entity, candidate + b * count, side + b * count, count, d,
                   out + b * count);
}

/* weight (rows, count) is the loss's gradient by each score. Writes to_query (rows, 2, d) and to_entity (n, d);
   offsets (n + 1) and pair (rows * count) are scratch: the pairs sorted by candidate. */
void gathered_gradients(int kind, const float *query, const float *entity, const int64_t *candidate,
                        const uint8_t *side, const float *weight, int64_t rows, int64_t count, int64_t n, int64_t d,
                        float *to_query, float *to_entity, int64_t *offsets, int64_t *pair) {
    group_pairs(candidate, rows * count, n, offsets, pair);
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 4) nowait
        for (int64_t b = 0; b < rows; b++)
            query_gradient(kind, query + b * 2 * d, entity, candidate + b * count, side + b * count,
                           weight + b * count, count, d, to_query + b * 2 * d);
#pragma omp for schedule(dynamic, 16)
        for (int64_t e = 0; e < n; e++)
            entity_gradient(kind, query, entity + e * d, side, weight, pair + offsets[e], offsets[e + 1] - offsets[e],
                            count, d, to_entity + e * d);
    }
}
