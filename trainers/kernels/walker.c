/* Messages that spread from the one known entity of a query over the graph, layer by layer, and their gradients.

   Edge (s -> v, relation r) carries h_s * w_r, number by number, with w_r of the layer and the query. An entity that has
   been reached adds up what arrives, m, and becomes

       h' = h + max(0, normalise(A [h; m; c m] + b) * gain + shift),   c = 1 / (1 + log(1 + its edges that are not hidden)),

   normalise: mean 0 and deviation 1 over its d numbers. At the start h is `begin` at the known entity and 0 elsewhere;
   what has not been reached yet is 0 and stays out of the work. The score of an entity is its product with `ask`, so 0
   where it was never reached.

   Edges are grouped by the entity they lead to, and each has a reverse, so what leads to v also says where v leads.
   Two edges a query may be hidden from it: the fact that is asked for, in both directions.

   A query is one work item and writes what is its own alone, so threads change nothing. Its memory holds a row for each
   entity that it reaches, in the order in which it reaches them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

#define WIDEST 32
#define LAYERS 16 /* at most */
#define EPSILON 1e-5f

typedef struct {
    const int64_t *start;  /* (entities + 1): the edges that lead to an entity */
    const int32_t *source; /* (edges) */
    const int32_t *relation;
    const float *calm; /* (most edges of an entity + 1): c of so many edges */
    int64_t entities, relations, layers, d;
    const float *across;              /* (layers, 3 d, d): A transposed */
    const float *down;                /* (layers, d, 3 d): A */
    const float *bias, *gain, *shift; /* (layers, d) */
} graph;

typedef struct {
    const float *begin, *ask; /* (d) */
    const float *weight;      /* (layers, relations, d) */
    const int64_t *hidden;    /* (2) edges, -1: none */
    int32_t *reached;         /* (entities) in order … */
    int32_t *place;           /* (entities) … and where each stands there, -1: nowhere */
    int64_t count[LAYERS + 1]; /* how many after each layer */
    float *state;             /* (layers + 1, count[layers], d) */
} query;

/* Gradients of one query. */
typedef struct {
    float *begin, *ask, *weight;
    float *across; /* (layers, 3 d, d) */
    float *bias, *gain, *shift;
} slope;

#define INLINE static inline __attribute__((always_inline))

/* m (d), and how many edges of v are not hidden: a model that saw the others counted would know what is asked for. */
INLINE int64_t gather(const graph *g, const query *q, const float *h, const float *w, int64_t v, int64_t d,
                   float *restrict m) {
    float sum[WIDEST] = {0};
    int64_t edges = g->start[v + 1] - g->start[v];
    for (int64_t e = g->start[v]; e < g->start[v + 1]; e++) {
        if (e == q->hidden[0] || e == q->hidden[1]) {
            edges--;
            continue;
        }
        int64_t from = q->place[g->source[e]];
        if (from < 0) continue;
        const float *a = h + from * d, *b = w + (int64_t)g->relation[e] * d;
#pragma omp simd
        for (int64_t k = 0; k < d; k++) sum[k] += a[k] * b[k];
    }
    for (int64_t k = 0; k < d; k++) m[k] = sum[k];
    return edges;
}

/* x (3 d) = [h; m; c m], and y (d) = normalised A x + b; returns 1 / deviation. */
INLINE float inner(const graph *g, int64_t layer, const float *h, const float *m, float c, int64_t d,
                   float *restrict x, float *restrict y) {
    const float *A = g->across + layer * 3 * d * d, *b = g->bias + layer * d;
    float one[WIDEST] = {0}, two[WIDEST] = {0}, three[WIDEST] = {0}, mean = 0, square = 0;
    for (int64_t i = 0; i < d; i++) x[i] = h[i], x[d + i] = m[i], x[2 * d + i] = c * m[i];
    for (int64_t i = 0; i < d; i++) {
#pragma omp simd
        for (int64_t k = 0; k < d; k++) {
            one[k] += x[i] * A[i * d + k];
            two[k] += x[d + i] * A[(d + i) * d + k];
            three[k] += x[2 * d + i] * A[(2 * d + i) * d + k];
        }
    }
    for (int64_t k = 0; k < d; k++) y[k] = one[k] + two[k] + three[k] + b[k], mean += y[k];
    mean /= d;
    for (int64_t k = 0; k < d; k++) y[k] -= mean, square += y[k] * y[k];
    float scale = 1 / sqrtf(square / d + EPSILON);
    for (int64_t k = 0; k < d; k++) y[k] *= scale;
    return scale;
}

INLINE void layer_forward(const graph *g, const query *q, int64_t layer, const float *before, float *after,
                          int64_t d) {
    const float *w = q->weight + layer * g->relations * d;
    const float *gain = g->gain + layer * d, *shift = g->shift + layer * d;
    float m[WIDEST], x[3 * WIDEST], y[WIDEST];
    for (int64_t at = 0; at < q->count[layer + 1]; at++) {
        int64_t v = q->reached[at];
        const float *h = before + at * d;
        float *to = after + at * d;
        float c = g->calm[gather(g, q, before, w, v, d, m)];
        inner(g, layer, h, m, c, d, x, y);
        for (int64_t k = 0; k < d; k++) {
            float z = y[k] * gain[k] + shift[k];
            to[k] = h[k] + (z > 0 ? z : 0);
        }
    }
}

/* slope_after of what the layer made -> slope_before, which begins as zeros. */
INLINE void layer_backward(const graph *g, const query *q, const slope *s, int64_t layer, const float *before,
                           const float *slope_after, float *slope_before, int64_t d) {
    const float *w = q->weight + layer * g->relations * d, *down = g->down + layer * 3 * d * d;
    const float *gain = g->gain + layer * d, *shift = g->shift + layer * d;
    float *dw = s->weight + layer * g->relations * d, *dA = s->across + layer * 3 * d * d;
    float *db = s->bias + layer * d, *dgain = s->gain + layer * d, *dshift = s->shift + layer * d;
    float m[WIDEST], x[3 * WIDEST], y[WIDEST], dy[WIDEST], dx[3 * WIDEST];
    for (int64_t at = 0; at < q->count[layer + 1]; at++) {
        int64_t v = q->reached[at];
        const float *dto = slope_after + at * d;
        float c = g->calm[gather(g, q, before, w, v, d, m)], mean = 0, along = 0;
        float scale = inner(g, layer, before + at * d, m, c, d, x, y);
        for (int64_t k = 0; k < d; k++) {
            float dz = y[k] * gain[k] + shift[k] > 0 ? dto[k] : 0;
            dgain[k] += dz * y[k];
            dshift[k] += dz;
            dy[k] = dz * gain[k];
            mean += dy[k];
            along += dy[k] * y[k];
        }
        for (int64_t k = 0; k < d; k++) dy[k] = scale * (dy[k] - (mean + along * y[k]) / d), db[k] += dy[k];
        for (int64_t i = 0; i < 3 * d; i++) {
#pragma omp simd
            for (int64_t k = 0; k < d; k++) dA[i * d + k] += x[i] * dy[k];
        }
        for (int64_t i = 0; i < 3 * d; i++) dx[i] = 0;
        for (int64_t k = 0; k < d; k++) {
#pragma omp simd
            for (int64_t i = 0; i < 3 * d; i++) dx[i] += dy[k] * down[k * 3 * d + i];
        }
        float *own = slope_before + at * d;
        for (int64_t k = 0; k < d; k++) own[k] += dto[k] + dx[k], dx[d + k] += c * dx[2 * d + k];
        for (int64_t e = g->start[v]; e < g->start[v + 1]; e++) {
            if (e == q->hidden[0] || e == q->hidden[1]) continue;
            int64_t from = q->place[g->source[e]] * (int64_t)d, by = (int64_t)g->relation[e] * d;
            if (from < 0) continue;
            float *dh = slope_before + from, *dr = dw + by;
            const float *h = before + from, *r = w + by;
#pragma omp simd
            for (int64_t k = 0; k < d; k++) {
                dh[k] += dx[d + k] * r[k];
                dr[k] += dx[d + k] * h[k];
            }
        }
    }
}

VECTORISED static void forward_16(const graph *g, const query *q, int64_t l, const float *a, float *b) {
    layer_forward(g, q, l, a, b, 16);
}
VECTORISED static void forward_32(const graph *g, const query *q, int64_t l, const float *a, float *b) {
    layer_forward(g, q, l, a, b, 32);
}
VECTORISED static void backward_16(const graph *g, const query *q, const slope *s, int64_t l, const float *h,
                                   const float *a, float *b) {
    layer_backward(g, q, s, l, h, a, b, 16);
}
VECTORISED static void backward_32(const graph *g, const query *q, const slope *s, int64_t l, const float *h,
                                   const float *a, float *b) {
    layer_backward(g, q, s, l, h, a, b, 32);
}

/* Who is reached after each layer, from `known` on. */
static void reach(const graph *g, query *q, int64_t known) {
    int64_t found = 1, done = 0;
    memset(q->place, 0xff, sizeof(int32_t) * g->entities);
    q->reached[0] = (int32_t)known;
    q->place[known] = 0;
    q->count[0] = 1;
    for (int64_t layer = 0; layer < g->layers; layer++) {
        for (int64_t stop = found; done < stop; done++) {
            int64_t v = q->reached[done];
            for (int64_t e = g->start[v]; e < g->start[v + 1]; e++) {
                int32_t s = g->source[e];
                if (q->place[s] >= 0 || e == q->hidden[0] || e == q->hidden[1]) continue;
                q->place[s] = (int32_t)found;
                q->reached[found++] = s;
            }
        }
        q->count[layer + 1] = found;
    }
}

static void forget(query *q) {
    free(q->reached);
    free(q->place);
    free(q->state);
}

/* Walk from `known`: fills q's lists and states. Returns 0 if there is no memory. */
static int walk(const graph *g, query *q, int64_t known) {
    q->reached = malloc(sizeof(int32_t) * g->entities);
    q->place = malloc(sizeof(int32_t) * g->entities);
    q->state = NULL;
    if (!q->reached || !q->place) return 0;
    reach(g, q, known);
    int64_t size = q->count[g->layers] * g->d;
    q->state = calloc((g->layers + 1) * size, sizeof(float));
    if (!q->state) return 0;
    memcpy(q->state, q->begin, sizeof(float) * g->d);
    for (int64_t l = 0; l < g->layers; l++)
        (g->d == 16 ? forward_16 : forward_32)(g, q, l, q->state + l * size, q->state + (l + 1) * size);
    return 1;
}

static inline float score_of(const graph *g, const query *q, int64_t at) {
    const float *h = q->state + (g->layers * q->count[g->layers] + at) * g->d;
    float sum = 0;
    for (int64_t k = 0; k < g->d; k++) sum += h[k] * q->ask[k];
    return sum;
}

static query query_of(const graph *g, int64_t b, const float *begin, const float *ask, const float *weight,
                      const int64_t *hidden) {
    query q = {.begin = begin + b * g->d, .ask = ask + b * g->d, .hidden = hidden + 2 * b,
               .weight = weight + b * g->layers * g->relations * g->d};
    return q;
}

/* known (B), begin and ask (B, d), weight (B, layers, relations, d), hidden (B, 2)
   -> score (B, entities), which begins as zeros. Returns 0, or 1 if there is no memory. */
int walker_scores(const graph *g, int64_t queries, const int64_t *known, const float *begin, const float *ask,
                  const float *weight, const int64_t *hidden, float *score) {
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed)
    for (int64_t b = 0; b < queries; b++) {
        query q = query_of(g, b, begin, ask, weight, hidden);
        if (walk(g, &q, known[b]))
            for (int64_t at = 0; at < q.count[g->layers]; at++)
                score[b * g->entities + q.reached[at]] = score_of(g, &q, at);
        else
            failed = 1;
        forget(&q);
    }
    return failed;
}

/* Cross entropy of `answer` among all entities but `others` (n): slope (count[layers]) by each reached entity's score.
   What is not reached scores 0. */
static double cross_entropy(const graph *g, const query *q, int64_t answer, const int64_t *others, int64_t n,
                            float *slope) {
    int64_t count = q->count[g->layers];
    for (int64_t at = 0; at < count; at++) slope[at] = score_of(g, q, at);
    int64_t right = q->place[answer], far = g->entities - count;
    float truth = right < 0 ? 0 : slope[right];
    for (int64_t i = 0; i < n; i++) {
        if (others[i] == answer) continue;
        if (q->place[others[i]] < 0)
            far--;
        else
            slope[q->place[others[i]]] = -INFINITY;
    }
    /* From the largest score that is left: far below a masked one, or below 0, every exponential would be 0. */
    float top = far > 0 ? 0 : -INFINITY;
    for (int64_t at = 0; at < count; at++) top = slope[at] > top ? slope[at] : top;
    double total = far > 0 ? far * exp(-(double)top) : 0;
    for (int64_t at = 0; at < count; at++) total += slope[at] = expf(slope[at] - top);
    for (int64_t at = 0; at < count; at++) slope[at] /= (float)total;
    if (right >= 0) slope[right] -= 1;
    return log(total) + top - truth;
}

/* The slopes of one query's loss; `slope` (count[layers]) by the scores. Returns 0 if there is no memory. */
static int walk_back(const graph *g, const query *q, const slope *s, const float *by_score) {
    int64_t count = q->count[g->layers], d = g->d, size = count * d;
    float *after = malloc(size * sizeof(float)), *before = malloc(size * sizeof(float));
    if (after && before) {
        const float *last = q->state + g->layers * size;
        for (int64_t at = 0; at < count; at++)
            for (int64_t k = 0; k < d; k++) {
                after[at * d + k] = by_score[at] * q->ask[k];
                s->ask[k] += by_score[at] * last[at * d + k];
            }
        for (int64_t l = g->layers - 1; l >= 0; l--) {
            memset(before, 0, size * sizeof(float));
            (d == 16 ? backward_16 : backward_32)(g, q, s, l, q->state + l * size, after, before);
            float *swap = before;
            before = after;
            after = swap;
        }
        memcpy(s->begin, after, sizeof(float) * d); /* the known entity stands first */
    }
    int done = after && before;
    free(after);
    free(before);
    return done;
}

/* As walker_scores; answer (B), and the known answers of query b in `others` from first[b] to before last[b]
   -> loss (B), and the gradients of each query's loss by begin, ask, weight, and (B, …) each layer's across, bias, gain
   and shift, which begin as zeros. */
int walker_losses(const graph *g, int64_t queries, const int64_t *known, const float *begin, const float *ask,
                  const float *weight, const int64_t *hidden, const int64_t *answer, const int64_t *others,
                  const int64_t *first, const int64_t *last, float *loss, float *dbegin, float *dask, float *dweight, float *dacross,
                  float *dbias, float *dgain, float *dshift) {
    int failed = 0;
    int64_t d = g->d, n = g->layers;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed)
    for (int64_t b = 0; b < queries; b++) {
        query q = query_of(g, b, begin, ask, weight, hidden);
        slope s = {dbegin + b * d, dask + b * d, dweight + b * n * g->relations * d, dacross + b * n * 3 * d * d,
                   dbias + b * n * d, dgain + b * n * d, dshift + b * n * d};
        float *by_score = NULL;
        if (walk(g, &q, known[b]) && (by_score = malloc(sizeof(float) * q.count[n]))) {
            loss[b] = (float)cross_entropy(g, &q, answer[b], others + first[b], last[b] - first[b], by_score);
            if (!walk_back(g, &q, &s, by_score)) failed = 1;
        } else
            failed = 1;
        free(by_score);
        forget(&q);
    }
    return failed;
}
