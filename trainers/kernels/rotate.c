#include "common.h"
VECTORISED void tessera_probe(const float *x, float *y, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) y[i] = 2 * x[i];
}
