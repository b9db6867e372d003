/* Distances between complex vectors, and their gradients, without temporaries.

   A complex vector of width d lies as 2d floats: d real parts, then d imaginary parts. The distance of q and e is
   sum_j |q_j - e_j|, the complex modulus summed over components (RotatE, arXiv 1902.10197, equation 4).

   Training compares, for each of `rows` positives, two queries (side 0: the rotated head, asked for a tail; side 1: the
   counter-rotated tail, asked for a head) with `count` candidates, each of which names its side. Each output number is
   written by one thread that adds in a fixed order, so results do not depend on how many threads run. */
#include <math.h>
#include <string.h>

#include "common.h"

VECTORISED static void row_distances(const float *restrict query, const float *restrict entity,
                                     const int64_t *restrict candidate, const uint8_t *restrict side, int64_t count,
                                     int64_t d, float *restrict out) {
    for (int64_t k = 0; k < count; k++) {
        const float *q = query + (side[k] ? 2 * d : 0), *e = entity + candidate[k] * 2 * d;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < d; j++) {
            float re = q[j] - e[j], im = q[d + j] - e[d + j];
            sum += sqrtf(re * re + im * im);
        }
        out[k] = sum;
    }
}

/* to += weight * (q - e) / |q - e| for each component; equal components give 0, as torch.linalg.norm does. */
static inline void add_direction(const float *restrict q, const float *restrict e, float weight, int64_t d,
                                 float *restrict to) {
#pragma omp simd
    for (int64_t j = 0; j < d; j++) {
        float re = q[j] - e[j], im = q[d + j] - e[d + j];
        float square = re * re + im * im;
        float scale = weight / sqrtf(square == 0 ? 1.0f : square);
        to[j] += scale * re;
        to[d + j] += scale * im;
    }
}

VECTORISED static void row_query_gradient(const float *restrict query, const float *restrict entity,
                                          const int64_t *restrict candidate, const uint8_t *restrict side,
                                          const float *restrict weight, int64_t count, int64_t d,
                                          float *restrict to) {
    memset(to, 0, sizeof(float) * 4 * d);
    for (int64_t k = 0; k < count; k++) {
        int64_t at = side[k] ? 2 * d : 0;
        add_direction(query + at, entity + candidate[k] * 2 * d, weight[k], d, to + at);
    }
}

VECTORISED static void entity_gradient(const float *restrict query, const float *restrict entity,
                                       const uint8_t *restrict side, const float *restrict weight,
                                       const int64_t *restrict pair, int64_t pairs, int64_t count, int64_t d,
                                       float *restrict to) {
    memset(to, 0, sizeof(float) * 2 * d);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t p = pair[i];
        add_direction(entity, query + (2 * (p / count) + (side[p] != 0)) * 2 * d, weight[p], d, to);
    }
}

VECTORISED static void tile_distances(const float *restrict query, int64_t queries, const float *restrict entity,
                                      int64_t entities, int64_t d, int64_t stride, float *restrict out) {
    for (int64_t e = 0; e < entities; e++)
        for (int64_t i = 0; i < queries; i++) {
            const float *q = query + i * 2 * d, *c = entity + e * 2 * d;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < d; j++) {
                float re = q[j] - c[j], im = q[d + j] - c[d + j];
                sum += sqrtf(re * re + im * im);
            }
            out[i * stride + e] = sum;
        }
}

/* query (rows, 2, 2d), entity (n, 2d), candidate and side (rows, count) -> out (rows, count) */
void rotate_distances(const float *query, const float *entity, const int64_t *candidate, const uint8_t *side,
                      int64_t rows, int64_t count, int64_t d, float *out) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t b = 0; b < rows; b++)
        row_distances(query + b * 4 * d, entity, candidate + b * count, side + b * count, count, d, out + b * count);
}

/* weight (rows, count) is the loss's gradient by each distance. Writes to_query (rows, 2, 2d) and to_entity (n, 2d);
   offsets (n + 1) and pair (rows * count) are scratch: the pairs sorted by candidate. */
void rotate_gradients(const float *query, const float *entity, const int64_t *candidate, const uint8_t *side,
                      const float *weight, int64_t rows, int64_t count, int64_t n, int64_t d, float *to_query,
                      float *to_entity, int64_t *offsets, int64_t *pair) {
    group_pairs(candidate, rows * count, n, offsets, pair);
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 4) nowait
        for (int64_t b = 0; b < rows; b++)
            row_query_gradient(query + b * 4 * d, entity, candidate + b * count, side + b * count, weight + b * count,
                               count, d, to_query + b * 4 * d);
#pragma omp for schedule(dynamic, 16)
        for (int64_t e = 0; e < n; e++) {
            entity_gradient(query, entity + e * 2 * d, side, weight, pair + offsets[e],
                            offsets[e + 1] - offsets[e], count, d,
                            to_entity + e * 2 * d);
        }
    }
}

/* query (queries, 2d), entity (n, 2d) -> out (queries, n); tiles keep a few queries and candidates in cache. */
void rotate_all_distances(const float *query, int64_t queries, const float *entity, int64_t n, int64_t d, float *out) {
    const int64_t wide = 64, high = 8;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t e = 0; e < n; e += wide) {
        int64_t width = n - e < wide ? n - e : wide;
        for (int64_t i = 0; i < queries; i += high)
            tile_distances(query + i * 2 * d, queries - i < high ? queries - i : high, entity + e * 2 * d, width, d, n,
                           out + i * n + e);
    }
}
