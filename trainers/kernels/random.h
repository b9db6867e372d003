/* Random bits as a function of (seed, row, column) alone: no state, so any thread may draw any of them, in any order,
   and a backward pass draws again what the forward pass drew.

   A row's 64-bit key comes from splitmix64 (Steele, Lea & Flood 2014); a 32-bit finaliser with two multiplications
   (constants: Pelle Evensen, C. Wellons' hash-prospector) mixes the key's halves with the column. Dropout takes two
   16-bit draws out of each, so p is kept to 2^-17. */
#ifndef TESSERA_KERNELS_RANDOM_H
#define TESSERA_KERNELS_RANDOM_H

#include <stdint.h>

typedef struct {
    uint32_t low, high;
} row_key;

static inline uint64_t splitmix(uint64_t z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline row_key key_of(uint64_t seed, uint64_t row) {
    uint64_t k = splitmix(seed ^ splitmix(row));
    return (row_key){(uint32_t)k, (uint32_t)(k >> 32)};
}

static inline uint32_t draw(row_key key, uint32_t column) {
    uint32_t h = key.low + column * 0x9E3779B9u;
    h ^= h >> 16;
    h = (h ^ key.high) * 0x21F0AAADu;
    h ^= h >> 15;
    h *= 0xD35A2D97u;
    return h ^ (h >> 15);
}

#endif
