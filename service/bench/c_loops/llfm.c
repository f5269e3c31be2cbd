/* LLFM, 50 anchors of k = 10, single-valued fields: distances to all anchors, the nearest five (DO) or as many as the
   greedy rule takes, by squared distances (JO), gamma, their machines. A row: 64 floats of distances, then a slot of 16 floats per anchor (v, folded scalar, zeros). As in our kernel, the
   neighbours of a few items are found ahead, and their slots asked for. */
#include "vec8.h"
#include <math.h>

#define NEAR 64
#define SLOT 16
#define NEIGHBOURS 5
#define ANCHORS 50
#define ROW 864
#define BLOCK 8
#define LINES_AHEAD 152

#if defined(__AVX2__) && defined(__FMA__)
static inline int take_least(vec8 *far, float *least) {
    vec8 best = _mm256_min_ps(_mm256_min_ps(_mm256_min_ps(far[0], far[1]), _mm256_min_ps(far[2], far[3])),
                              _mm256_min_ps(_mm256_min_ps(far[4], far[5]), far[6]));
    __m128 x = _mm_min_ps(_mm256_castps256_ps128(best), _mm256_extractf128_ps(best, 1));
    x = _mm_min_ps(x, _mm_movehl_ps(x, x));
    x = _mm_min_ss(x, _mm_shuffle_ps(x, x, 1));
    *least = _mm_cvtss_f32(x);
    vec8 all = _mm256_broadcastss_ps(x);
    uint64_t bits = 0;
    for (int p = 0; p < 7; p++)
        bits |= (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(far[p], all, _CMP_EQ_OQ)) << (8 * p);
    int place = __builtin_ctzll(bits);
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    vec8 infinite = _mm256_set1_ps(INFINITY);
    for (int p = 0; p < 7; p++) {
        __m256i here = _mm256_cmpeq_epi32(lane, _mm256_set1_epi32(place - 8 * p));
        far[p] = _mm256_blendv_ps(far[p], infinite, _mm256_castsi256_ps(here));
    }
    return place;
}
#else
static inline int take_least(vec8 *far, float *least) {
    int place = 0;
    for (int a = 1; a < 56; a++)
        if (far[a / 8][a % 8] < far[place / 8][place % 8])
            place = a;
    *least = far[place / 8][place % 8];
    far[place / 8][place % 8] = INFINITY;
    return place;
}
#endif

/* Places and gamma of the nearest five. */
static inline int nearest_five(vec8 *far, float beta, int *slots, float *gamma) {
    float least[NEIGHBOURS], total = 0;
    for (int j = 0; j < NEIGHBOURS; j++)
        slots[j] = NEAR + SLOT * take_least(far, least + j);
    for (int j = 0; j < NEIGHBOURS; j++)
        total += gamma[j] = expf(-beta * (least[j] - least[0]));
    for (int j = 0; j < NEIGHBOURS; j++)
        gamma[j] /= total;
    return NEIGHBOURS;
}

/* Places and gamma of those that the greedy rule takes: the next while k u - U < sqrt(k + U^2 - k Q). */
static inline int greedy(vec8 *far, float ratio, int *slots, float *gamma) {
    float total = 0, squares = 0, first = 0;
    int k = 0;
    for (; k < ANCHORS; k++) {
        float least;
        int place = take_least(far, &least);
        first = k ? first : least;
        float u = ratio * (least - first), excess = k * u - total;
        if (excess > 0 && excess * excess >= k + total * total - k * squares)
            break;
        slots[k] = NEAR + SLOT * place;
        gamma[k] = u;
        total += u;
        squares += u * u;
    }
    float root = k + total * total - k * squares;
    root = root > 0 ? sqrtf(root) : 0;
    for (int j = 0; j < k; j++)
        gamma[j] = ((total + root) / k - gamma[j]) / root;
    return k;
}

static inline __attribute__((always_inline)) void slate(const float *table, const int32_t *rows, int64_t n, int64_t m,
                                                        const float *start, const float *state, float coding, int jo,
                                                        float *out) {
    int slots[BLOCK][ANCHORS], counts[BLOCK];
    float gamma[BLOCK][ANCHORS];
    int64_t ahead = (LINES_AHEAD + 4 * m - 1) / (4 * m);
    if (ahead < BLOCK)
        ahead = BLOCK;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t stop = first + BLOCK < n ? first + BLOCK : n;
        for (int64_t i = first; i < stop; i++) {
            const int32_t *ids = rows + i * m, *later = rows + (i + ahead < n ? i + ahead : n - 1) * m;
            vec8 far[7];
            for (int p = 0; p < 7; p++)
                far[p] = vec8_load(start + 8 * p);
            for (int64_t f = 0; f < m; f++) {
                const float *soon = table + (int64_t)later[f] * ROW, *row = table + (int64_t)ids[f] * ROW;
                __builtin_prefetch(soon), __builtin_prefetch(soon + 16);
                __builtin_prefetch(soon + 32), __builtin_prefetch(soon + 48);
                for (int p = 0; p < 7; p++)
                    far[p] = vec8_add(far[p], vec8_load(row + 8 * p));
            }
            int b = (int)(i - first);
            counts[b] = jo ? greedy(far, coding, slots[b], gamma[b]) : nearest_five(far, coding, slots[b], gamma[b]);
            for (int j = 0; j < counts[b]; j++)
                for (int64_t f = 0; f < m; f++)
                    __builtin_prefetch(table + (int64_t)ids[f] * ROW + slots[b][j]);
        }
        for (int64_t i = first; i < stop; i++) {
            const int32_t *ids = rows + i * m;
            float score = 0;
            for (int j = 0; j < counts[i - first]; j++) {
                int slot = slots[i - first][j];
                vec8 a = vec8_load(state + slot), b = vec8_load(state + slot + 8);
                for (int64_t f = 0; f < m; f++) {
                    const float *row = table + (int64_t)ids[f] * ROW + slot;
                    a = vec8_add(a, vec8_load(row));
                    b = vec8_add(b, vec8_load(row + 8));
                }
                static const float halves[16] __attribute__((aligned(64))) = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f,
                                                                              0.5f, 0.5f, 0.5f, 0.5f};
                static const float ones[16] __attribute__((aligned(64))) = {[10] = 1};
                vec8 sum = vec8_mul(a, vec8_fma(a, vec8_load(halves), vec8_load(ones)));
                sum = vec8_fma(b, vec8_fma(b, vec8_load(halves + 8), vec8_load(ones + 8)), sum);
                score += gamma[i - first][j] * vec8_sum(sum);
            }
            out[i] = score;
        }
    }
}

void llfm(const float *table, const int32_t *rows, int64_t n, int64_t m, const float *start, const float *state, float beta,
          float *out) {
    slate(table, rows, n, m, start, state, beta, 0, out);
}

void llfm_jo(const float *table, const int32_t *rows, int64_t n, int64_t m, const float *start, const float *state,
             float ratio, float *out) {
    slate(table, rows, n, m, start, state, ratio, 1, out);
}
