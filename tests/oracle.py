"""Every formula written plainly: float64, double loops, from the definitions. All fast code must agree with this file.

`FM` (Rendle 2010) is defined over *features*:   b0 + sum_i x_i b_i + sum_{i<j} x_i x_j <v_i, v_j>
`FwFM` (Pan et al. 2018) over *field vectors*:   b0 + sum_i x_i b_i + sum_{f<g} R_fg <v_f, v_g>,   v_f = sum x_i v_i
`RaFM` (Chen et al. 2019) over *features*:       b0 + sum_i x_i b_i + sum_{i<j} x_i x_j <v_i^(k), v_j^(k)>,
with k = min(k_i, k_j), the lower of the two features' groups.
`DPLR` (the low-rank paper, equations 5, 9, 10): the same with R = U^T diag(e) U with its diagonal set to zero.

Pruned FwFM is FwFM with the pruned R. `NFM`, `AFM`, `DCN`, `DeepFM`: see their functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models_export.encoded import EncodedSide
from models_export.locality import Locality
from models_export.manifest import Manifest
from models_export.weights import Weights

Value = tuple[int, float]
"""A feature row and its value x."""


def values_by_field(manifest: Manifest, context: EncodedSide, items: EncodedSide, item: int) -> list[list[Value]]:
    """The active features of one (context, item) pair, field by field in manifest order."""
    fields: list[list[Value]] = [[] for _ in manifest.fields]
    for name, side, row in (("context", context, 0), ("item", items, item)):
        place(fields, manifest.kernel_order(name), manifest.n_multi(name), side, row)  # type: ignore[arg-type]
    return fields


def place(fields: list[list[Value]], order: Sequence[int], n_multi: int, side: EncodedSide, row: int) -> None:
    """Write the values of one encoded row to `fields`: `order[j]` is the field of the j-th one in kernel order."""
    n_single = len(order) - n_multi
    for j in range(n_single):
        fields[order[j]] = [(int(side.rows[row, j]), 1.0)]
    for j in range(n_multi):
        begin, end = side.multi_indptr[row * n_multi + j], side.multi_indptr[row * n_multi + j + 1]
        fields[order[n_single + j]] = [
            (int(side.multi_rows[p]), float(side.multi_weights[p])) for p in range(begin, end)
        ]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    total = 0.0
    for x, y in zip(left, right, strict=True):
        total += float(x) * float(y)
    return total


def linear_part(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    total = float(weights.bias)
    for values in fields:
        for row, x in values:
            total += x * float(weights.linear[row])
    return total


def fm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    features = [value for values in fields for value in values]
    total = linear_part(weights, fields)
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            (row_i, x_i), (row_j, x_j) = features[i], features[j]
            total += x_i * x_j * dot(weights.vectors[row_i], weights.vectors[row_j])
    return total


def field_vectors(weights: Weights, fields: Sequence[Sequence[Value]]) -> list[list[float]]:
    dim = weights.vectors.shape[1]
    vectors = []
    for values in fields:
        vector = [0.0] * dim
        for row, x in values:
            for c in range(dim):
                vector[c] += x * float(weights.vectors[row, c])
        vectors.append(vector)
    return vectors


def fwfm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    matrix = weights.field_matrix
    assert matrix is not None
    return linear_part(weights, fields) + field_pairs(weights, fields, matrix.astype(np.float64))


def dplr(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    assert weights.U is not None and weights.e is not None
    m = len(fields)
    matrix = np.zeros((m, m))
    for f in range(m):
        for g in range(m):
            for r in range(len(weights.e)):
                matrix[f, g] += float(weights.U[r, f]) * float(weights.e[r]) * float(weights.U[r, g])
    return linear_part(weights, fields) + field_pairs(weights, fields, matrix)


def field_pairs(weights: Weights, fields: Sequence[Sequence[Value]], matrix: np.ndarray) -> float:
    vectors = field_vectors(weights, fields)
    total = 0.0
    for f in range(len(fields)):
        for g in range(f + 1, len(fields)):
            total += float(matrix[f, g]) * dot(vectors[f], vectors[g])
    return total


def bpr_loss(weights: Weights, triples: Sequence[tuple[Sequence[Sequence[Value]], ...]]) -> float:
    """Mean of -ln sigma(y(C, I) - y(C, J)) over triples (C, I, J) of feature lists by field (SharpCF paper, equation
    3)."""
    total = 0.0
    for context, positive, negative in triples:
        gap = fm(weights, [*context, *positive]) - fm(weights, [*context, *negative])
        total += math.log1p(math.exp(-gap))
    return total / len(triples)


def trajectory_loss(
    weights: Weights, triples: Sequence[tuple[Sequence[Sequence[Value]], ...]], past: Sequence[float]
) -> float:
    """Mean of (y(C, I) - y(C, I) of the past)^2 (SharpCF paper, equation 17 without lambda)."""
    total = 0.0
    for (context, positive, _), before in zip(triples, past, strict=True):
        total += (fm(weights, [*context, *positive]) - before) ** 2
    return total / len(triples)


def occurrence_l2(weights: Weights, triples: Sequence[tuple[Sequence[Sequence[Value]], ...]], l2: float) -> float:
    """Mean over triples of 1/2 l2 |v|^2, summed over the triple's features."""
    total = 0.0
    for triple in triples:
        for fields in triple:
            for values in fields:
                for row, _ in values:
                    total += 0.5 * l2 * dot(weights.vectors[row], weights.vectors[row])
    return total / len(triples)


def recall_and_ndcg(
    scores: Sequence[Sequence[float]],
    known: Sequence[Sequence[int]],
    relevant: Sequence[Sequence[int]],
    k: int,
) -> tuple[float, float]:
    """Means over the users with a relevant item; items in order of score, then number; ``known`` ones are left out."""
    recall, ndcg, users = 0.0, 0.0, 0
    for of_user, ours, wanted in zip(scores, known, relevant, strict=True):
        if not len(wanted):
            continue
        users += 1
        order = sorted((i for i in range(len(of_user)) if i not in ours), key=lambda i: (-of_user[i], i))[:k]
        gain = sum(1.0 / math.log2(rank + 2) for rank, item in enumerate(order) if item in wanted)
        ideal = sum(1.0 / math.log2(rank + 2) for rank in range(min(k, len(wanted))))
        recall += sum(item in wanted for item in order) / len(wanted)
        ndcg += gain / ideal
    return recall / users, ndcg / users


def layers(network: Mapping[str, np.ndarray], x: list[float]) -> list[float]:
    """Fully connected relu layers."""
    number = 0
    while f"hidden_{number}.weight" in network:
        weight, bias = network[f"hidden_{number}.weight"], network[f"hidden_{number}.bias"]
        x = [max(0.0, float(bias[i]) + dot(weight[i], x)) for i in range(len(bias))]
        number += 1
    return x


def nfm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    """He and Chua 2017: b0 + sum x b + p^T layers(sum_{i<j} x_i v_i * x_j v_j), pairs of features."""
    features = [value for values in fields for value in values]
    pooled = [0.0] * weights.vectors.shape[1]
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            (row_i, x_i), (row_j, x_j) = features[i], features[j]
            for c in range(len(pooled)):
                pooled[c] += x_i * float(weights.vectors[row_i, c]) * x_j * float(weights.vectors[row_j, c])
    return linear_part(weights, fields) + dot(weights.network["out.weight"], layers(weights.network, pooled))


def afm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    """Xiao et al. 2017: b0 + sum x b + p^T sum_{f<g} a_fg (v_f * v_g), a = softmax(q^T relu(W (v_f * v_g) + c))."""
    net, vectors = weights.network, field_vectors(weights, fields)
    products, energies = [], []
    for f in range(len(fields)):
        for g in range(f + 1, len(fields)):
            product = [x * y for x, y in zip(vectors[f], vectors[g], strict=True)]
            energy = 0.0
            for t in range(len(net["attention.out"])):
                inner = float(net["attention.bias"][t]) + dot(net["attention.weight"][t], product)
                energy += float(net["attention.out"][t]) * max(0.0, inner)
            products.append(product)
            energies.append(energy)
    total = sum(float(np.exp(e)) for e in energies)
    score = linear_part(weights, fields)
    for product, energy in zip(products, energies, strict=True):
        score += float(np.exp(energy)) / total * dot(net["out.weight"], product)
    return score


def dcn(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    """Wang et al. 2017: b0 + sum x b + p^T [x_D; layers(x_0)], x_{l+1} = x_0 (x_l^T w_l) + c_l + x_l."""
    net = weights.network
    first = [c for vector in field_vectors(weights, fields) for c in vector]
    crossed = list(first)
    for layer in range(len(net["cross.weight"])):
        product = dot(crossed, net["cross.weight"][layer])
        crossed = [first[i] * product + float(net["cross.bias"][layer, i]) + crossed[i] for i in range(len(first))]
    return linear_part(weights, fields) + dot(net["out.weight"], crossed + layers(net, first))


def deepfm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    """Guo et al. 2017: FM + p^T layers([v_1; ..; v_m])."""
    first = [c for vector in field_vectors(weights, fields) for c in vector]
    return fm(weights, fields) + dot(weights.network["out.weight"], layers(weights.network, first))


def level_vector(weights: Weights, row: int, level: int) -> np.ndarray:
    """v^(level) of a feature of a rafm: vectors lie one behind the other, features in order, levels 1 to the group."""
    assert weights.groups is not None
    start = 0
    for group in weights.groups[:row].tolist():
        start += sum(weights.ranks[:group])
    start += sum(weights.ranks[: level - 1])
    return weights.vectors[start : start + weights.ranks[level - 1]]


def rafm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    assert weights.groups is not None
    features = [value for values in fields for value in values]
    total = linear_part(weights, fields)
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            (row_i, x_i), (row_j, x_j) = features[i], features[j]
            level = int(min(weights.groups[row_i], weights.groups[row_j]))
            total += x_i * x_j * dot(level_vector(weights, row_i, level), level_vector(weights, row_j, level))
    return total


def llfm(weights: Weights, fields: Sequence[Sequence[Value]]) -> float:
    """b0 + sum_a gamma_a f_a, with the squared distance of anchor a sum_i (x_i^2 - 2 x_i z_ai) + |z_a|^2 over the
    occurrences of features (|x - z_a|^2, where no feature occurs twice)."""
    assert weights.anchors is not None and weights.anchor_bias is not None and weights.locality is not None
    features = [value for values in fields for value in values]
    distances, machines = [], []
    for a in range(len(weights.anchors)):
        z = [float(c) for c in weights.anchors[a]]
        distances.append(dot(z, z) + sum(x * x - 2 * x * z[row] for row, x in features))
        of_anchor = Weights("fm", weights.vectors[:, a], weights.linear[:, a], float(weights.anchor_bias[a]))
        machines.append(fm(of_anchor, fields))
    gamma = local_coding(weights.locality, distances)
    return float(weights.bias) + sum(g * machines[a] for a, g in gamma.items())


def local_coding(locality: Locality, distances: Sequence[float]) -> dict[int, float]:
    """gamma of the neighbours, by anchor."""
    order = sorted(range(len(distances)), key=lambda a: distances[a])
    if locality.scheme != "jo":
        near = order[: locality.neighbours]
        e = {a: math.exp(-locality.beta * (distances[a] - distances[near[0]])) for a in near}
        return {a: e[a] / sum(e.values()) for a in near}
    u = {a: locality.ratio * (distances[a] if locality.squared else math.sqrt(max(distances[a], 0.0))) for a in order}
    bound, k = u[order[0]] + 1.0, 0
    while k < len(order) and bound > u[order[k]]:
        k += 1
        total, squares = sum(u[a] for a in order[:k]), sum(u[a] ** 2 for a in order[:k])
        bound = (total + math.sqrt(max(k + total**2 - k * squares, 0.0))) / k
    return {a: (bound - u[a]) / sum(bound - u[b] for b in order[:k]) for a in order[:k]}


FORMULAS = {
    "llfm": llfm,
    "fm": fm,
    "fwfm": fwfm,
    "pruned_fwfm": fwfm,
    "dplr": dplr,
    "rafm": rafm,
    "nfm": nfm,
    "afm": afm,
    "dcn": dcn,
    "deepfm": deepfm,
}
"""Manifest family -> its formula."""


def mixture(first: Sequence[Sequence[Value]], second: Sequence[Sequence[Value]], share: float) -> list[list[Value]]:
    """MixFM (equation 3): share x_first + (1 - share) x_second, field by field; x holds each feature once."""
    mixed = []
    for a, b in zip(first, second, strict=True):
        x: dict[int, float] = {}
        for part, values in ((share, a), (1.0 - share, b)):
            for row, weight in values:
                x[row] = x.get(row, 0.0) + part * weight
        mixed.append(list(x.items()))
    return mixed


def loss_of(loss: str, score: float, label: float) -> float:
    if loss == "squared":
        return (score - label) ** 2
    return float(np.logaddexp(0.0, score)) - label * score


def slopes(
    weights: Weights, fields: Sequence[Sequence[Value]], loss: str, label: float, step: float = 1e-5
) -> list[list[float]]:
    """DL/dx of each active feature by central differences of the family's formula."""
    formula = FORMULAS[weights.family]

    def moved(f: int, j: int, by: float) -> float:
        copy = [list(values) for values in fields]
        copy[f][j] = (copy[f][j][0], copy[f][j][1] + by)
        return loss_of(loss, formula(weights, copy), label)

    return [
        [(moved(f, j, step) - moved(f, j, -step)) / (2 * step) for j in range(len(values))]
        for f, values in enumerate(fields)
    ]


def score(manifest: Manifest, weights: Weights, context: EncodedSide, items: EncodedSide, item: int) -> float:
    """The logit of one (context, item) pair."""
    return FORMULAS[manifest.family](weights, values_by_field(manifest, context, items, item))


def scores(manifest: Manifest, weights: Weights, context: EncodedSide, items: EncodedSide) -> np.ndarray:
    """The logits of a slate, float64 [n]."""
    return np.array([score(manifest, weights, context, items, i) for i in range(len(items))], np.float64)
