/* Attention over a few modalities after a ReLU, row by row: with r_m = relu(p_m), a = softmax_m(w . r_m), the result is
   sum_m a_m r_m. Plain tensor operations make a dozen passes over (rows, d) numbers of this; here it is one. */
#include <math.h>
#include <string.h>

#include "common.h"

#define MOST 8    /* modalities */
#define CHUNK 128 /* rows whose gradients of w are added up together, whatever the number of threads */

static inline float positive(float x) { return x > 0 ? x : 0; }

VECTORISED static float relu_dot(const float *restrict p, const float *restrict w, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d; j++) sum += positive(p[j]) * w[j];
    return sum;
}

VECTORISED static void add_relu(const float *restrict p, float a, int64_t d, float *restrict out) {
#pragma omp simd
    for (int64_t j = 0; j < d; j++) out[j] += a * positive(p[j]);
}

VECTORISED static void gradients(const float *restrict p, const float *restrict g, const float *restrict w, float a,
                                 float slope, int64_t d, float *restrict dp, float *restrict dw) {
#pragma omp simd
    for (int64_t j = 0; j < d; j++) {
        dp[j] = p[j] > 0 ? a * g[j] + slope * w[j] : 0.0f;
        dw[j] += slope * positive(p[j]);
    }
}

/* parts: `modalities` pointers to (rows, d). present (rows, modalities) or NULL: what takes part; a row without any
   gives 0. Writes weights (rows, modalities) and out (rows, d). */
void attention_forward(const float *const *parts, int64_t modalities, const float *w, const uint8_t *present,
                       int64_t rows, int64_t d, float *weights, float *out) {
#pragma omp parallel for schedule(static) if (rows * d > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        float logit[MOST], most = -INFINITY, total = 0;
        for (int64_t m = 0; m < modalities; m++) {
            logit[m] = present && !present[i * modalities + m] ? -INFINITY : relu_dot(parts[m] + i * d, w, d);
            if (!(logit[m] <= most)) most = logit[m]; /* a NaN must come out as one */
        }
        for (int64_t m = 0; m < modalities; m++) {
            logit[m] = logit[m] == -INFINITY ? 0 : expf(logit[m] - most);
            total += logit[m];
        }
        memset(out + i * d, 0, sizeof(float) * d);
        for (int64_t m = 0; m < modalities; m++) {
            float a = total == 0 ? 0 : logit[m] / total;
            weights[i * modalities + m] = a;
            if (a != 0) add_relu(parts[m] + i * d, a, d, out + i * d);
        }
    }
}

/* gradient (rows, d) of out -> to_parts: `modalities` pointers to (rows, d), and to_w (ceil(rows / 128), d), whose rows
   the caller adds up */
void attention_backward(const float *const *parts, int64_t modalities, const float *w, const float *weights,
                        const float *gradient, int64_t rows, int64_t d, float *const *to_parts, float *to_w) {
#pragma omp parallel for schedule(static) if (rows * d > SMALL)
    for (int64_t start = 0; start < rows; start += CHUNK) {
        float *dw = to_w + start / CHUNK * d;
        memset(dw, 0, sizeof(float) * d);
        for (int64_t i = start; i < rows && i < start + CHUNK; i++) {
            const float *a = weights + i * modalities, *g = gradient + i * d;
            float along[MOST], mean = 0;
            for (int64_t m = 0; m < modalities; m++) {
                along[m] = relu_dot(parts[m] + i * d, g, d);
                mean += a[m] * along[m];
            }
            for (int64_t m = 0; m < modalities; m++)
                gradients(parts[m] + i * d, g, w, a[m], a[m] * (along[m] - mean), d, to_parts[m] + i * d, dw);
        }
    }
}
