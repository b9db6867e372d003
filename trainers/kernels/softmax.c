/* Cross entropy of one right column among all: cost log(sum exp x) - x_target, slope softmax(x) - [target]. */
#include <math.h>

#include "common.h"
#include "exponential.h"

#define RUN 256 /* added as float, then as double: exact enough for millions of columns */

VECTORISED static double row(float *restrict x, int64_t columns, int64_t target, float weight) {
    float top = x[0], own = x[target];
    double total = 0;
#pragma omp simd reduction(max : top)
    for (int64_t c = 0; c < columns; c++) top = x[c] > top ? x[c] : top;
    for (int64_t start = 0; start < columns; start += RUN) {
        int64_t stop = start + RUN < columns ? start + RUN : columns;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = start; c < stop; c++) {
            float a = x[c] - top, e = exp_negative(a);
            sum += x[c] = a == a ? e : a; /* NaN stays NaN */
        }
        total += sum;
    }
    float factor = (float)(weight / total);
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) x[c] *= factor;
    x[target] -= weight;
    return log(total) + top - own;
}

/* x (rows, columns) becomes the slope, times weight; cost (rows) is each row's cost, unweighted */
void softmax_cost_and_slope(float *x, const int64_t *target, int64_t rows, int64_t columns, float weight,
                            double *cost) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < rows; b++) cost[b] = row(x + b * columns, columns, target[b], weight);
}
