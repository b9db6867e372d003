/* Attention of one query vector, the same for every sequence, on sequences of rows gathered from tables, with dropout
   on the gathered numbers and on the weights; and its gradients. Nothing of size N * T * d is stored.

   A sequence has T = 1 + sum of m places: place 0 is the query's own, which is no row of a table and has no dropout;
   then m places for each segment. With u_h the query's direction in head h and o_hs what a place of segment s adds to
   its logit:   logit_ht = u_h . y_t + o_hs,   y_t = dropout(table_s[index_t]),   logit_h0 = o_h0,
                a = dropout(softmax(logit)),   mixed_h = sum_t a_ht y_t,   share_hs = sum of a_ht over segment s.

   The mask of place t of sequence n is drawn from (seed, n * T + t), that of the weights from (seed, n * T): again in
   the backward pass. Sequences come in blocks of BLOCK, whose partial sums the caller adds in order: each output number
   is written by one work item, and the number of threads changes nothing. */
#include <math.h>
#include <string.h>

#include "common.h"
#include "random.h"

#define BLOCK 64
#define WIDE 64

typedef struct {
    const float *table;    /* (rows, d) */
    const int64_t *index;  /* (n, m) rows of the table; NULL: row n */
    const uint8_t *absent; /* (n, m), 1 where the place is empty; NULL: none is */
    int64_t m;
    uint32_t threshold; /* draws below are dropped */
    float scale;        /* of what is kept */
} segment;

typedef struct {
    const segment *segments;
    int64_t count, n, d, heads, places;
    const float *direction; /* (heads, d) */
    const float *offset;    /* (heads, count + 1) */
    uint64_t seed;
    uint32_t threshold; /* of the dropout on the weights */
    float scale;
} attention;

static inline void values(const float *restrict x, int64_t d, row_key key, uint32_t threshold, float scale,
                          float *restrict y) {
    if (threshold == 0) {
        memcpy(y, x, sizeof(float) * d);
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < d; j++) y[j] = draw(key, (uint32_t)j) >= threshold ? x[j] * scale : 0.0f;
}

static inline float dot(const float *restrict a, const float *restrict b, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d; j++) sum += a[j] * b[j];
    return sum;
}

static inline void add(const float *restrict x, float factor, int64_t d, float *restrict to) {
#pragma omp simd
    for (int64_t j = 0; j < d; j++) to[j] += factor * x[j];
}

static inline float kept(const attention *a, row_key key, int64_t cell) {
    return a->threshold && draw(key, (uint32_t)cell) < a->threshold ? 0.0f : a->scale;
}

/* y (T, d) of sequence e; present (T) says which places hold something */
static inline void gather(const attention *a, int64_t e, float *restrict y, uint8_t *restrict present) {
    int64_t t = 1;
    present[0] = 1;
    for (int64_t s = 0; s < a->count; s++) {
        const segment *part = a->segments + s;
        for (int64_t i = 0; i < part->m; i++, t++) {
            present[t] = !(part->absent && part->absent[e * part->m + i]);
            if (!present[t]) continue;
            int64_t row = part->index ? part->index[e * part->m + i] : e;
            values(part->table + row * a->d, a->d, key_of(a->seed, (uint64_t)(e * a->places + t)), part->threshold,
                   part->scale, y + t * a->d);
        }
    }
}

/* weight (heads, T): the softmax before its dropout */
VECTORISED static void forward_one(const attention *a, int64_t e, float *restrict y, uint8_t *restrict present,
                                   float *restrict weight, float *restrict mixed, float *restrict share) {
    int64_t d = a->d, places = a->places, parts = a->count + 1;
    row_key key = key_of(a->seed, (uint64_t)(e * places));
    gather(a, e, y, present);
    memset(mixed, 0, sizeof(float) * a->heads * d);
    memset(share, 0, sizeof(float) * a->heads * parts);
    for (int64_t h = 0; h < a->heads; h++) {
        float *w = weight + h * places, top = w[0] = a->offset[h * parts];
        for (int64_t s = 0, t = 1; s < a->count; s++)
            for (int64_t i = 0; i < a->segments[s].m; i++, t++) {
                if (!present[t]) continue;
                w[t] = dot(a->direction + h * d, y + t * d, d) + a->offset[h * parts + s + 1];
                if (w[t] > top || w[t] != w[t]) top = w[t];
            }
        float sum = 0;
        for (int64_t t = 0; t < places; t++) sum += w[t] = present[t] ? expf(w[t] - top) : 0.0f;
        for (int64_t t = 0; t < places; t++) w[t] /= sum;
        share[h * parts] = w[0] * kept(a, key, h * places);
        for (int64_t s = 0, t = 1; s < a->count; s++)
            for (int64_t i = 0; i < a->segments[s].m; i++, t++) {
                if (!present[t]) continue;
                float dropped = w[t] * kept(a, key, h * places + t);
                share[h * parts + s + 1] += dropped;
                add(y + t * d, dropped, d, mixed + h * d);
            }
    }
}

void ent_attention_forward(const attention *a, float *scratch, uint8_t *present, float *weight, float *mixed,
                           float *share) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t block = 0; block < (a->n + BLOCK - 1) / BLOCK; block++)
        for (int64_t e = block * BLOCK; e < a->n && e < (block + 1) * BLOCK; e++)
            forward_one(a, e, scratch + block * a->places * a->d, present + block * a->places,
                        weight + e * a->heads * a->places, mixed + e * a->heads * a->d,
                        share + e * a->heads * (a->count + 1));
}

/* From the gradients of mixed and share: dropped (heads, T), the weights after dropout; slope (heads, T), the gradient
   of each logit; added to d_direction (heads, d) and d_offset (heads, count + 1). */
VECTORISED static void backward_one(const attention *a, int64_t e, float *restrict y, uint8_t *restrict present,
                                    const float *restrict weight, const float *restrict d_mixed,
                                    const float *restrict d_share, float *restrict dropped, float *restrict slope,
                                    float *restrict d_direction, float *restrict d_offset) {
    int64_t d = a->d, places = a->places, parts = a->count + 1;
    row_key key = key_of(a->seed, (uint64_t)(e * places));
    gather(a, e, y, present);
    for (int64_t h = 0; h < a->heads; h++) {
        const float *w = weight + h * places;
        float *out = dropped + h * places, *g = slope + h * places, mean = 0;
        for (int64_t t = 0, s = 0, end = 1; t < places; t++) {
            while (t >= end) end += a->segments[s++].m;
            float keep = kept(a, key, h * places + t);
            float along = t && present[t] ? dot(d_mixed + h * d, y + t * d, d) : 0.0f;
            out[t] = w[t] * keep;
            g[t] = present[t] ? keep * (along + d_share[h * parts + s]) : 0.0f;
            mean += w[t] * g[t];
        }
        for (int64_t t = 0, s = 0, end = 1; t < places; t++) {
            while (t >= end) end += a->segments[s++].m;
            g[t] = w[t] * (g[t] - mean);
            if (!present[t]) continue;
            d_offset[h * parts + s] += g[t];
            if (t) add(y + t * d, g[t], d, d_direction + h * d);
        }
    }
}

/* d_direction (blocks, heads, d) and d_offset (blocks, heads, count + 1) start at 0 */
void ent_attention_backward(const attention *a, float *scratch, uint8_t *present, const float *weight,
                            const float *d_mixed, const float *d_share, float *dropped, float *slope,
                            float *d_direction, float *d_offset) {
    int64_t cells = a->heads * a->places, parts = a->heads * (a->count + 1);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t block = 0; block < (a->n + BLOCK - 1) / BLOCK; block++)
        for (int64_t e = block * BLOCK; e < a->n && e < (block + 1) * BLOCK; e++)
            backward_one(a, e, scratch + block * a->places * a->d, present + block * a->places, weight + e * cells,
                         d_mixed + e * a->heads * a->d, d_share + e * parts, dropped + e * cells, slope + e * cells,
                         d_direction + block * a->heads * a->d, d_offset + block * parts);
}

/* to += the gradient that place t of sequence e hands to its row */
static inline void add_place(const attention *a, int64_t e, int64_t t, uint32_t threshold, float scale,
                             const float *restrict dropped, const float *restrict slope,
                             const float *restrict d_mixed, float *restrict to) {
    row_key key = key_of(a->seed, (uint64_t)(e * a->places + t));
    for (int64_t start = 0; start < a->d; start += WIDE) {
        int64_t wide = a->d - start < WIDE ? a->d - start : WIDE;
        float sum[WIDE] = {0};
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t cell = (e * a->heads + h) * a->places + t;
            const float *m = d_mixed + (e * a->heads + h) * a->d + start, *u = a->direction + h * a->d + start;
            float w = dropped[cell], g = slope[cell];
#pragma omp simd
            for (int64_t j = 0; j < wide; j++) sum[j] += w * m[j] + g * u[j];
        }
#pragma omp simd
        for (int64_t j = 0; j < wide; j++)
            to[start + j] += draw(key, (uint32_t)(start + j)) >= threshold ? scale * sum[j] : 0.0f;
    }
}

VECTORISED static void one_row(const attention *a, const segment *part, int64_t first, const int64_t *order,
                               int64_t count, const float *dropped, const float *slope, const float *d_mixed,
                               float *restrict to) {
    memset(to, 0, sizeof(float) * a->d);
    for (int64_t i = 0; i < count; i++) {
        int64_t cell = order[i];
        if (part->absent && part->absent[cell]) continue;
        add_place(a, cell / part->m, first + cell % part->m, part->threshold, part->scale, dropped, slope, d_mixed, to);
    }
}

/* order (cells) lists the cells by their row, each row's in ascending order; starts (rows + 1): where they begin. */
void ent_attention_order(const int64_t *index, int64_t cells, int64_t rows, int64_t *order, int64_t *starts) {
    memset(starts, 0, sizeof(int64_t) * (rows + 1));
    for (int64_t c = 0; c < cells; c++) starts[index[c] + 1]++;
    for (int64_t r = 0; r < rows; r++) starts[r + 1] += starts[r];
    for (int64_t c = 0; c < cells; c++) order[starts[index[c]]++] = c; /* moves each start to its end ... */
    memmove(starts + 1, starts, sizeof(int64_t) * rows);               /* ... which is where the next one starts */
    starts[0] = 0;
}

/* d_table (rows, d) of segment s, whose first place is `first`. order and starts: see ent_attention_order. */
void ent_attention_table(const attention *a, int64_t s, int64_t first, const int64_t *order, const int64_t *starts,
                         int64_t rows, const float *dropped, const float *slope, const float *d_mixed,
                         float *d_table) {
#pragma omp parallel for schedule(dynamic, 32)
    for (int64_t r = 0; r < rows; r++)
        one_row(a, a->segments + s, first, order + starts[r], starts[r + 1] - starts[r], dropped, slope, d_mixed,
                d_table + r * a->d);
}
