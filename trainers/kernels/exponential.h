/* exp by a polynomial that a compiler can vectorise. */
#ifndef TESSERA_KERNELS_EXPONENTIAL_H
#define TESSERA_KERNELS_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

static inline float as_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline int32_t as_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* exp(a) for a <= 0, relative error below 2e-7: 2^n e^f with |f| <= ln(2)/2, e^f by its Taylor polynomial. Below -87
   the result is the smallest normal number rather than a denormal or 0, which a sum of costs does not notice. */
static inline float exp_negative(float a) {
    a = a < -87.0f ? -87.0f : a;
    float shifted = a * 1.44269504f + 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer in the low bits */
    float n = shifted - 12582912.0f;
    float f = a - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts, the first exact */
    float e = 1.0f / 5040;
    e = e * f + 1.0f / 720;
    e = e * f + 1.0f / 120;
    e = e * f + 1.0f / 24;
    e = e * f + 1.0f / 6;
    e = e * f + 0.5f;
    e = e * f + 1.0f;
    e = e * f + 1.0f;
    return e * as_float((as_bits(shifted) - 0x4B400000 + 127) << 23);
}

#endif
