/* RaFM, ranks 8 and 32: score = t + <E_1, 1/2 E_1 + H_1> + 1/2 |E_2|^2. A row of group 1 is v^(1), one of group 2 v^(1)
   v^(2); v^(1) goes to E_1 or H_1, v^(2) to E_2. As in our kernel, an item's rows are sorted by group into two lists
   ahead of their use (a branch on each row's group made this loop 1.1 to 1.4 times slower). */
#include "vec8.h"

#define R2 32
#define LONGEST 256
/* Items between a row's prefetch and its use; 4 was slower by 5 to 10 %: these items read twice the lines. */
#define EARLY 2
struct record { int32_t at; float folded; };

static inline void fill(const float *rows, const struct record *records, const int32_t *ids, const int32_t *later,
                        int64_t m, const float **one, const float **two, int64_t *counts, float *sum) {
    static const float zeros[K] __attribute__((aligned(64)));
    int64_t first = 0, second = 0;
    float s = 0, t = 0, u = 0, v = 0;
    for (int64_t f = 0; f < m; f++) {
        __builtin_prefetch(records + later[f]);
        const struct record *record = records + ids[f];
        const float *row = rows + (int64_t)(record->at >> 4) * 8;
        int group = (record->at & 15) != 0;
        __builtin_prefetch(row);
        __builtin_prefetch(group ? row + 16 : row);
        __builtin_prefetch(group ? row + 32 : row);
        *(group ? two + second : one + first) = row;
        second += group;
        first += 1 - group;
        float next = s + record->folded;
        s = t, t = u, u = v, v = next;
    }
    one[first] = one[first + 1] = one[first + 2] = zeros;
    counts[0] = first, counts[1] = second, *sum = (s + t) + (u + v);
}

/* At most LONGEST fields. */
void rafm(const float *rows, const struct record *records, const int32_t *ids, int64_t n, int64_t m, const float *state,
          float *out) {
    const float *lists[2 * EARLY][2][LONGEST + 3];
    int64_t counts[2 * EARLY][2], filled = 0;
    float sums[2 * EARLY];
    for (int64_t i = 0; i < n; i++) {
        for (; filled < n && filled <= i + EARLY; filled++) {
            int64_t slot = filled % (2 * EARLY), later = filled + EARLY < n ? filled + EARLY : n - 1;
            fill(rows, records, ids + filled * m, ids + later * m, m, lists[slot][0], lists[slot][1], counts[slot],
                 sums + slot);
        }
        int64_t slot = i % (2 * EARLY);
        const float **one = lists[slot][0], **two = lists[slot][1];
        vec8 e = vec8_load(state + 1), h = vec8_load(state + 1 + K), long_e[R2 / 8];
        vec8 a = vec8_all(0), b = vec8_all(0), c = vec8_all(0);
        for (int64_t j = 0; j < counts[slot][0]; j += 4) {
            e = vec8_add(e, vec8_load(one[j]));
            a = vec8_add(a, vec8_load(one[j + 1]));
            b = vec8_add(b, vec8_load(one[j + 2]));
            c = vec8_add(c, vec8_load(one[j + 3]));
        }
        e = vec8_add(vec8_add(e, a), vec8_add(b, c));
        for (int p = 0; p < R2 / 8; p++)
            long_e[p] = vec8_load(state + 1 + 2 * K + 8 * p);
        for (int64_t j = 0; j < counts[slot][1]; j++) {
            h = vec8_add(h, vec8_load(two[j]));
            for (int p = 0; p < R2 / 8; p++)
                long_e[p] = vec8_add(long_e[p], vec8_load(two[j] + K + 8 * p));
        }
        vec8 half = vec8_all(0.5f), squares = vec8_mul(e, vec8_fma(half, e, h));
        for (int p = 0; p < R2 / 8; p++)
            squares = vec8_fma(vec8_mul(half, long_e[p]), long_e[p], squares);
        out[i] = state[0] + sums[slot] + vec8_sum(squares);
    }
}
