/* TuckER's contraction with a dropout mask a query: q_bj = scale * sum_i x_bi * keep_bij * M_u(b)ij, and its gradients.

   The mask has B * d * d numbers and is never stored: keep_bij is a function of (seed, b, i, j), drawn where it is
   needed, forward and backward. `order` lists the queries so that those of one matrix stand together, which keeps a
   matrix in cache. Matrices come in blocks of `rows` of their rows i, starting at `first`: (matrices, rows, d). Or, if
   `place` (matrices, rows) is not NULL, as those rows alone that are needed: row i of matrix u lies at place[u, i], and
   -1 says that it is not there, since all x_bi that meet it were dropped.

   Every output number is written by one work item that adds in a fixed order: threads change nothing. */
#include <string.h>

#include "common.h"
#include "random.h"

#define RUN 8 /* queries of one matrix that a work item of the forward pass takes together */

/* A kept number times its partner is added, a dropped one adds 0. */
VECTORISED static void add_kept(const float *restrict m, int64_t d, row_key key, uint32_t threshold, float x,
                                float *restrict q) {
    if (threshold == 0) { /* evaluation */
#pragma omp simd
        for (int64_t j = 0; j < d; j++) q[j] += x * m[j];
        return;
    }
    int64_t half = (d + 1) / 2;
#pragma omp simd
    for (int64_t j = 0; j < d / 2; j++) {
        uint32_t h = draw(key, (uint32_t)j);
        q[j] += (h & 0xFFFF) >= threshold ? x * m[j] : 0.0f;
        q[j + half] += (h >> 16) >= threshold ? x * m[j + half] : 0.0f;
    }
    if (d % 2 && (draw(key, (uint32_t)(half - 1)) & 0xFFFF) >= threshold) q[half - 1] += x * m[half - 1];
}

/* Returns sum_j keep_j * m_j * g_j, and adds x * keep_j * g_j to dm_j. */
VECTORISED static float both_gradients(const float *restrict m, const float *restrict g, int64_t d, row_key key,
                                       uint32_t threshold, float x, float *restrict dm) {
    int64_t half = (d + 1) / 2;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d / 2; j++) {
        uint32_t h = draw(key, (uint32_t)j);
        float low = (h & 0xFFFF) >= threshold ? g[j] : 0.0f;
        float high = (h >> 16) >= threshold ? g[j + half] : 0.0f;
        sum += low * m[j] + high * m[j + half];
        dm[j] += x * low;
        dm[j + half] += x * high;
    }
    if (d % 2 && (draw(key, (uint32_t)(half - 1)) & 0xFFFF) >= threshold) {
        sum += g[half - 1] * m[half - 1];
        dm[half - 1] += x * g[half - 1];
    }
    return sum;
}

static inline int64_t row_at(const int64_t *place, int64_t u, int64_t rows, int64_t i) {
    return place ? place[u * rows + i] : u * rows + i;
}

/* x (B, d), matrix (U, rows, d), order and index (B) -> adds to q (B, d) */
void tucker_forward(const float *x, const float *matrix, const int64_t *place, const int64_t *order,
                    const int64_t *index, int64_t queries, int64_t d, int64_t first, int64_t rows, uint64_t seed,
                    uint32_t threshold, float scale, float *q) {
#pragma omp parallel for schedule(dynamic, 1) if (queries * rows * d > SMALL)
    for (int64_t start = 0; start < queries; start += RUN) {
        int64_t stop = start + RUN < queries ? start + RUN : queries;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t at = start; at < stop; at++) {
                int64_t b = order[at];
                float value = x[b * d + first + i];
                int64_t row = row_at(place, index[b], rows, i);
                if (value != 0 && row >= 0) /* dropout on the input zeroes many */
                    add_kept(matrix + row * d, d, key_of(seed, (uint64_t)(b * d + first + i)),
                             threshold, value * scale, q + b * d);
            }
    }
}

/* gradient (B, d) of q -> writes the columns `first` … of dx (B, d), and dmatrix (U, rows, d).
   offsets (U + 1) says where the queries of each matrix stand in `order`. */
void tucker_backward(const float *x, const float *matrix, const int64_t *place, const int64_t *order,
                     const int64_t *offsets, int64_t matrices, const float *gradient, int64_t d, int64_t first,
                     int64_t rows, uint64_t seed, uint32_t threshold, float scale, float *dx, float *dmatrix) {
#pragma omp parallel for collapse(2) schedule(dynamic, 4) if (offsets[matrices] * rows * d > SMALL)
    for (int64_t u = 0; u < matrices; u++)
        for (int64_t i = 0; i < rows; i++) {
            int64_t row = row_at(place, u, rows, i);
            if (row < 0) {
                for (int64_t at = offsets[u]; at < offsets[u + 1]; at++) dx[order[at] * d + first + i] = 0;
                continue;
            }
            const float *m = matrix + row * d;
            float *dm = dmatrix + row * d;
            memset(dm, 0, sizeof(float) * d);
            for (int64_t at = offsets[u]; at < offsets[u + 1]; at++) {
                int64_t b = order[at], cell = b * d + first + i;
                dx[cell] = scale * both_gradients(m, gradient + b * d, d, key_of(seed, (uint64_t)cell), threshold,
                                                  scale * x[cell], dm);
            }
        }
}
