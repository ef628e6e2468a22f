/* Fused multiply-adds for QEMU's Haswell, nine times as fast as without this file. docs/processors.md has the command.

QEMU computes each FMA with the C library of the machine, inside a translated block. If the upper halves of the AVX registers
are in use there, each switch to SSE code costs some hundred cycles. vzeroupper frees them first. The results are the
processor's own, and the same bits: fma() rounds once, whoever computes it. */
#include <immintrin.h>

__attribute__((target("fma"))) float fmaf(float a, float b, float c) {
    _mm256_zeroupper();
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}

__attribute__((target("fma"))) double fma(double a, double b, double c) {
    _mm256_zeroupper();
    return _mm_cvtsd_f64(_mm_fmadd_sd(_mm_set_sd(a), _mm_set_sd(b), _mm_set_sd(c)));
}
