/* Binary cross entropy from logits x against one label y that all pairs share: cost softplus(x) - y x, slope
   sigmoid(x) - y. One exponential and one logarithm a pair, both by polynomials that a compiler can vectorise. */
#include "common.h"
#include "exponential.h"

/* log(1 + e) for 0 <= e <= 1, relative error below 4e-7: 2 artanh(s) with s = e / (2 + e) <= 1/3, by its series. */
static inline float log_one_plus(float e) {
    float s = e / (2.0f + e), z = s * s;
    float t = 1.0f / 15;
    t = t * z + 1.0f / 13;
    t = t * z + 1.0f / 11;
    t = t * z + 1.0f / 9;
    t = t * z + 1.0f / 7;
    t = t * z + 1.0f / 5;
    t = t * z + 1.0f / 3;
    t = t * z + 1.0f;
    return 2.0f * s * t;
}

/* A float sum over 256 numbers, then doubles: exact enough for the mean of 10^8 costs. */
VECTORISED static double one_row(float *restrict x, const float *restrict column, int64_t columns, float row,
                                 float target) {
    double total = 0;
    for (int64_t start = 0; start < columns; start += 256) {
        int64_t stop = start + 256 < columns ? start + 256 : columns;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = start; c < stop; c++) {
            float a = x[c], positive = a > 0 ? a : 0;
            float e = exp_negative(a > 0 ? -a : a);
            float inverse = 1.0f / (1.0f + e);
            sum += column[c] * (positive - target * a + log_one_plus(e));
            x[c] = row * column[c] * ((a > 0 ? inverse : e * inverse) - target);
        }
        total += sum;
    }
    return total * row;
}

/* x (rows, columns) becomes the slope, times row (rows) and column (columns); cost (rows) = each row's cost, so weighted */
void bce_cost_and_slope(float *x, const float *row, const float *column, int64_t rows, int64_t columns, float target,
                        double *cost) {
#pragma omp parallel for schedule(static) if (rows * columns > SMALL)
    for (int64_t b = 0; b < rows; b++) cost[b] = one_row(x + b * columns, column, columns, row[b], target);
}

VECTORISED static void one_row_sigmoid(const float *restrict x, int64_t columns, float share, float *restrict out) {
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
        float e = exp_negative(x[c] > 0 ? -x[c] : x[c]);
        out[c] += share * ((x[c] > 0 ? 1.0f : e) / (1.0f + e));
    }
}

/* out += share * sigmoid(x); x (rows, columns), the rows of out `stride` numbers apart */
void bce_add_sigmoid(const float *x, int64_t rows, int64_t columns, int64_t stride, float share, float *out) {
#pragma omp parallel for schedule(static) if (rows * columns > SMALL)
    for (int64_t b = 0; b < rows; b++) one_row_sigmoid(x + b * columns, columns, share, out + b * stride);
}
