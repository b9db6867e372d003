/* What every kernel shares. */
#ifndef TESSERA_KERNELS_COMMON_H
#define TESSERA_KERNELS_COMMON_H

#include <stdint.h>
#include <string.h>

/* Compile a function for the vector units there are and choose at load time: one build runs everywhere.
   Only GNU compilers on x86-64 Linux can; elsewhere the plain function stands alone.
   Mark the inner function that a parallel loop calls, not the function that holds the loop: the compiler moves
   the loop's body into a function of its own, which the attribute does not reach. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

/* Numbers below which starting threads costs more than they save. */
#define SMALL (1 << 15)

/* Sort the numbers of pairs by the candidate (pairs) of each, below n: those of candidate e, ascending, are
   pair[offsets[e]] … pair[offsets[e + 1] - 1]. offsets (n + 1), pair (pairs). */
static inline void group_pairs(const int64_t *candidate, int64_t pairs, int64_t n, int64_t *offsets, int64_t *pair) {
    memset(offsets, 0, sizeof(int64_t) * (n + 1));
    for (int64_t p = 0; p < pairs; p++) offsets[candidate[p]]++;
    for (int64_t e = 1; e <= n; e++) offsets[e] += offsets[e - 1];         /* now the end of each list ... */
    for (int64_t p = pairs - 1; p >= 0; p--) pair[--offsets[candidate[p]]] = p; /* ... which filling moves to its start */
}

#endif
