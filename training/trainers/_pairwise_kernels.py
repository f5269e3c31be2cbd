# mypy: disable-error-code="no-untyped-def"
"""Compiled loops of the pairwise trainers: negative sampling, loss and gradients of a batch of triples, perturbation.

A triple is a context C (a user and what else the request tells), a positive item I and a negative item J; the encoder
is the factorization machine

    y(C, I) = b_C + b_I + 1/2 (|S_C + S_I|^2 - N_C - N_I),   S = sum x v,  N = sum x^2 |v|^2,  b = sum x b_f,

and with one user and one item feature y = b_u + b_i + <v_u, v_i>, a matrix factorization with item biases.
"""

import numpy as np
from numba import njit

FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(inline="always")  # type: ignore[misc]
def mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)  # type: ignore[misc]
def draw_negatives(key, pairs, user, indptr, items, candidates, out):
    """One item for each pair, uniform over ``candidates`` without the user's own; -1 for a user who has them all.

    The draw is a function of ``key`` (uint64) and the pair's number alone (splitmix64), not of batches or their order.
    """
    n = np.uint64(candidates.size)
    gamma = np.uint64(0x9E3779B97F4A7C15)
    for t in range(pairs.size):
        u = user[pairs[t]]
        begin, end = indptr[u], indptr[u + 1]
        if end - begin >= candidates.size:
            out[t] = -1
            continue
        state = mix(key + (np.uint64(pairs[t]) + np.uint64(1)) * gamma)
        while True:
            state += gamma
            item = candidates[np.int64(((mix(state) >> np.uint64(32)) * n) >> np.uint64(32))]
            low, high = begin, end
            while low < high:
                middle = (low + high) >> 1
                if items[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            if low == end or items[low] != item:
                out[t] = item
                break


@njit(inline="always")  # type: ignore[misc]
def sum_side(table, rows, x, begin, end, into):
    """S into ``into``; returns b + 1/2 (|S|^2 - N) of a side."""
    k = into.size
    linear, norms, square = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    if end - begin == 1:
        row, value = table[rows[begin]], x[begin]
        for c in range(k):
            into[c] = value * row[c]
        return value * row[k]
    for c in range(k):
        into[c] = np.float32(0.0)
    for p in range(begin, end):
        row, value = table[rows[p]], x[p]
        linear += value * row[k]
        for c in range(k):
            part = value * row[c]
            into[c] += part
            norms += part * part
    for c in range(k):
        square += into[c] * into[c]
    return linear + np.float32(0.5) * (square - norms)


@njit(inline="always")  # type: ignore[misc]
def compare(gap, share):
    """-ln sigma(gap), and minus ``share`` times its derivative."""
    e = np.exp(-abs(gap))
    loss = np.log1p(e) + max(-gap, np.float32(0.0))
    return loss, share * (e if gap > 0 else np.float32(1.0)) / (np.float32(1.0) + e)


@njit(inline="always")  # type: ignore[misc]
def mark(row, weight, occurrences, stamp, now, touched, count):
    if stamp[row] != now:
        stamp[row] = now
        occurrences[row] = np.float32(0.0)
        touched[count] = row
        count += 1
    occurrences[row] += weight
    return count


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def add_gradients(table, context, items, pairs, positive, negative, share, pull, past, linear, buffers):
    """Adds the gradients of a batch to ``grad`` and lists in ``touched`` the rows with stamp ``now``, with their
    ``occurrences``.

    ``buffers``: grad, occurrences, stamp, now, touched. ``context`` and ``items``: (indptr, rows, x) of the contexts,
    by pair, and of the catalogue. ``share``: weight of a triple's -ln sigma(y_CI - y_CJ). ``pull``: weight of (y_CI -
    past)^2; ``past`` float32 [B] is then overwritten by y_CI (empty: neither). Returns the number of touched rows and
    the sum of the losses.
    """
    k = table.shape[1] - 1
    grad, occurrences, stamp, now, touched = buffers
    c_indptr, c_rows, c_x = context
    i_indptr, i_rows, i_x = items
    sc, sp, sn = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    both, one = np.empty(k, np.float32), np.float32(1.0)
    loss, count = 0.0, 0
    for t in range(pairs.size):
        pair = pairs[t]
        if negative[t] < 0:
            continue
        c0, c1 = c_indptr[pair], c_indptr[pair + 1]
        p0, p1 = i_indptr[positive[pair]], i_indptr[positive[pair] + 1]
        n0, n1 = i_indptr[negative[t]], i_indptr[negative[t] + 1]
        own = sum_side(table, c_rows, c_x, c0, c1, sc)
        up = sum_side(table, i_rows, i_x, p0, p1, sp)
        down = sum_side(table, i_rows, i_x, n0, n1, sn)
        for c in range(k):
            up += sc[c] * sp[c]
            down += sc[c] * sn[c]
        more, gn = compare(up - down, share)
        loss += more
        gp = -gn
        if past.size:
            gp += np.float32(2.0) * pull * (own + up - past[t])
            past[t] = own + up
        total = gp + gn
        for c in range(k):
            both[c] = gp * sp[c] + gn * sn[c] + total * sc[c]
        for p in range(c0, c1):
            r, x = c_rows[p], c_x[p]
            count = mark(r, one, occurrences, stamp, now, touched, count)
            into, row, self_weight = grad[r], table[r], total * x
            for c in range(k):
                into[c] += x * (both[c] - self_weight * row[c])
            if linear:
                into[k] += x * total
        for begin, end, slope, si in ((p0, p1, gp, sp), (n0, n1, gn, sn)):
            for p in range(begin, end):
                r, x = i_rows[p], i_x[p]
                count = mark(r, one, occurrences, stamp, now, touched, count)
                into, row = grad[r], table[r]
                for c in range(k):
                    into[c] += slope * x * (sc[c] + si[c] - x * row[c])
                if linear:
                    into[k] += slope * x
    return count, loss


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def add_gradients_single(table, context, items, pairs, positive, negative, share, pull, past, linear, buffers):
    """:func:`add_gradients` where every context and every item is one feature of value 1: <v_u, v_i> + b_i + b_u."""
    k = table.shape[1] - 1
    grad, occurrences, stamp, now, touched = buffers
    c_rows, i_rows, one = context[1], items[1], np.float32(1.0)
    loss, count = 0.0, 0
    for t in range(pairs.size):
        pair = pairs[t]
        if negative[t] < 0:
            continue
        u, i, j = c_rows[pair], i_rows[positive[pair]], i_rows[negative[t]]
        eu, ei, ej = table[u], table[i], table[j]
        up, down = ei[k], ej[k]
        for c in range(k):
            up += eu[c] * ei[c]
            down += eu[c] * ej[c]
        more, gn = compare(up - down, share)
        loss += more
        gp = -gn
        if past.size:
            gp += np.float32(2.0) * pull * (eu[k] + up - past[t])
            past[t] = eu[k] + up
        count = mark(u, one, occurrences, stamp, now, touched, count)
        count = mark(i, one, occurrences, stamp, now, touched, count)
        count = mark(j, one, occurrences, stamp, now, touched, count)
        gu, gi, gj = grad[u], grad[i], grad[j]
        for c in range(k):
            a = eu[c]
            gu[c] += gp * ei[c] + gn * ej[c]
            gi[c] += gp * a
            gj[c] += gn * a
        if linear:
            gu[k] += gp + gn
            gi[k] += gp
            gj[k] += gn
    return count, loss


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def add_l2(table, grad, touched, occurrences, l2, l2_linear):
    """Gradient of 1/2 (l2 |v|^2 + l2_linear b^2), ``occurrences`` times."""
    k = table.shape[1] - 1
    for r in touched:
        row, into, weight = table[r], grad[r], l2 * occurrences[r]
        for c in range(k):
            into[c] += weight * row[c]
        into[k] += l2_linear * occurrences[r] * row[k]


@njit(cache=True)  # type: ignore[misc]
def steps_waited(touched, last, step, out):
    """For each touched row into ``out``: the steps since it was last touched, this one included; ``last`` is brought
    up to date."""
    for r in touched:
        out[r] = step - last[r]
        last[r] = step


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def perturb(table, grad, touched, radius, kept):
    """Moves each touched vector by ``radius`` along its own gradient (no gradient: not at all); ``kept``: what it
    was."""
    k = table.shape[1] - 1
    for t in range(touched.size):
        row, g = table[touched[t]], grad[touched[t]]
        kept[t] = row
        norm = 0.0
        for c in range(k):
            norm += np.float64(g[c]) * np.float64(g[c])
        if norm > 0.0:
            step = np.float32(radius / np.sqrt(norm))
            for c in range(k):
                row[c] += step * g[c]


@njit(cache=True)  # type: ignore[misc]
def put_back(table, touched, kept):
    """Undoes :func:`perturb`."""
    for t in range(touched.size):
        table[touched[t]] = kept[t]
