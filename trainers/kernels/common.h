/* What every kernel shares. */
#ifndef TESSERA_KERNELS_COMMON_H
#define TESSERA_KERNELS_COMMON_H

#include <stdint.h>

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

#endif
