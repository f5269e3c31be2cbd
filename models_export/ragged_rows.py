"""RaFM's parameters: features of several ranks, plain and packed for the kernel. Inactive factors are not stored.

Ranks D_1 < ... < D_P; feature i has a group k_i in 1..P and the vectors v_i^(1), ..., v_i^(k_i), of D_1, ..., D_{k_i}
floats. Plain, its vectors lie one behind the other, features in order: sum_p D_p |F_p| floats in all, F_p being the
features of group p and above. Packed, each vector is padded to kp_q = 8 ceil(D_q / 8) floats:

    packed row of group p: [v^(1), zeros to kp_1 | v^(2), zeros to kp_2 | ... | v^(p), zeros to kp_p | zeros to width_p]

``width_p`` is 8 floats where the vectors fill no more, else a multiple of 16 (whole lines of 64 bytes). The rows of
group P come first, then those of group P - 1, ..., each group's in the order of its features.

A feature's *record*, 8 bytes in one cache line, says where its row lies and what a feature of value 1 adds by itself:
int32 ``row_at`` and float32 ``folded`` = b_i - 1/2 |v_i^(k_i)|^2 (``service/kernels/rafm.py`` says why). The row starts
at float ``8 * (row_at >> 4)``, and ``row_at & 15`` is k_i - 1. Linear weights b_i lie apart: kernels need them for
values other than 1 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError
from models_export.manifest import MAX_RANKS

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
UNIT = 8
"""Row addresses count units of eight floats, 32 bytes."""


def padded(rank: int) -> int:
    """Floats of a packed vector: a multiple of 8."""
    return -(-rank // UNIT) * UNIT


@dataclass(frozen=True)
class RaggedShape:
    """Ranks and groups (int32 [n], 1 to P): where each vector lies, plain and packed. ``ArtefactError`` for ranks that
    are not strictly increasing, groups out of range, or rows beyond the addresses (4 GiB).
    """

    ranks: tuple[int, ...]
    groups: I32

    def __post_init__(self) -> None:
        ranks = self.ranks
        if not 1 <= len(ranks) <= MAX_RANKS or ranks[0] < 1 or list(ranks) != sorted(set(ranks)):
            raise ArtefactError("tensor 'ranks'", f"1 to {MAX_RANKS} strictly increasing numbers", str(list(ranks)))
        if self.groups.dtype != np.int32 or self.groups.ndim != 1:
            found = f"{self.groups.dtype} {self.groups.shape}"
            raise ArtefactError("rank groups", "int32 [features]", found)
        wrong = (self.groups < 1) | (self.groups > len(ranks))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ArtefactError(f"rank group of feature {row}", f"1 to {len(ranks)}", str(self.groups[row]))
        if self.packed_floats > UNIT << 27:
            raise ArtefactError("factors", f"at most {UNIT << 27} packed floats", str(self.packed_floats))

    @property
    def counts(self) -> list[int]:
        """Features of each group, group 1 first."""
        return [int(np.count_nonzero(self.groups == group)) for group in range(1, len(self.ranks) + 1)]

    @property
    def plain_lengths(self) -> list[int]:
        """Floats of a plain row by group: D_1 + ... + D_p."""
        return [*accumulate(self.ranks)]

    @property
    def widths(self) -> list[int]:
        """Floats of a packed row by group."""
        totals = accumulate(padded(rank) for rank in self.ranks)
        return [total if total <= UNIT else -(-total // 16) * 16 for total in totals]

    @property
    def factors(self) -> int:
        """Number of factors: sum_p D_p |F_p|."""
        return sum(n * length for n, length in zip(self.counts, self.plain_lengths, strict=True))

    @property
    def packed_floats(self) -> int:
        """Floats of all packed rows, padding included."""
        return sum(n * width for n, width in zip(self.counts, self.widths, strict=True))

    @property
    def row_at(self) -> I32:
        """16 (start of the packed row in units of 8 floats) + k_i - 1, int32 [n]."""
        at = np.empty(len(self.groups), dtype=np.int64)
        for group, start, stop in self._slabs():
            units = self.widths[group - 1] // UNIT
            at[self.groups == group] = 16 * np.arange(start // UNIT, stop // UNIT, units) + group - 1
        return at.astype(np.int32)

    @property
    def columns(self) -> list[tuple[int, int, int]]:
        """Level by level: (start in a plain row, start in a packed row, rank)."""
        plain = accumulate(self.ranks, initial=0)
        packed = accumulate((padded(rank) for rank in self.ranks), initial=0)
        return list(zip(plain, packed, self.ranks, strict=False))

    def packed_rows(self, rows: F32) -> list[tuple[int, F32]]:
        """(group, its packed rows float32 [n_p, width_p], a view) of the groups that have features."""
        return [(g, rows[start:stop].reshape(-1, self.widths[g - 1])) for g, start, stop in self._slabs()]

    def _slabs(self) -> list[tuple[int, int, int]]:
        """(group, first float, float after the last) of each group's packed rows, in the order of storage."""
        out, start = [], 0
        for group in range(len(self.ranks), 0, -1):
            stop = start + self.counts[group - 1] * self.widths[group - 1]
            if stop > start:
                out.append((group, start, stop))
            start = stop
        return out

    def _of_group(self, group: int) -> npt.NDArray[np.bool_]:
        """Which of the plain floats belong to features of a group."""
        lengths = np.array(self.plain_lengths)
        return np.repeat(self.groups == group, lengths[self.groups - 1])

    def pack(self, vectors: F32) -> F32:
        """Packed rows, float32 [packed_floats], of plain vectors float32 [factors]."""
        rows = np.zeros(self.packed_floats, dtype=np.float32)
        for group, packed in self.packed_rows(rows):
            plain = vectors[self._of_group(group)].reshape(len(packed), -1)
            for at_plain, at_packed, rank in self.columns[:group]:
                packed[:, at_packed : at_packed + rank] = plain[:, at_plain : at_plain + rank]
        return rows

    def unpack(self, rows: F32) -> F32:
        """The plain vectors of packed rows."""
        vectors = np.empty(self.factors, dtype=np.float32)
        for group, packed in self.packed_rows(rows):
            columns = [packed[:, at : at + rank] for _, at, rank in self.columns[:group]]
            vectors[self._of_group(group)] = np.concatenate(columns, axis=1).ravel()
        return vectors

    def padding_used(self, rows: F32) -> bool:
        """Whether a number other than 0 lies in the padding of packed rows."""
        for group, packed in self.packed_rows(rows):
            ends = [at + rank for _, at, rank in self.columns[:group]]
            starts = [at for _, at, _ in self.columns[1:group]] + [packed.shape[1]]
            if any(packed[:, end:start].any() for end, start in zip(ends, starts, strict=True)):
                return True
        return False

    def folded(self, rows: F32, linear: F32) -> F32:
        """b_i - 1/2 |v_i^(k_i)|^2 of packed rows, float32 [n], computed in float64."""
        folded = linear.astype(np.float64)
        for group, packed in self.packed_rows(rows):
            _, at, rank = self.columns[group - 1]
            own = packed[:, at : at + rank]
            folded[self.groups == group] -= 0.5 * np.einsum("nk,nk->n", own, own, dtype=np.float64)
        return folded.astype(np.float32)


def ragged_shape(ranks: Sequence[int] | npt.NDArray[np.integer], groups: I32) -> RaggedShape:
    """The shape with ranks as plain ints."""
    return RaggedShape(tuple(int(rank) for rank in ranks), groups)


@dataclass(frozen=True)
class RaggedRows:
    """RaFM's packed parameters, as an artefact holds them: ``rows`` float32 [packed_floats], ``records`` int32 [n, 2]
    (``row_at``, and the bits of ``folded``), ``linear`` float32 [n], and the ranks.
    """

    ranks: tuple[int, ...]
    rows: F32
    records: I32
    linear: F32

    @property
    def row_at(self) -> I32:
        """Address and group of each row, int32 [n] (a view)."""
        return self.records[:, 0]

    @property
    def folded(self) -> F32:
        """Folded scalars float32 [n] (a view)."""
        return self.records.view(np.float32)[:, 1]

    @property
    def shape(self) -> RaggedShape:
        """Ranks and groups."""
        return RaggedShape(self.ranks, (self.row_at & 15) + 1)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """By name in ``weights.safetensors``."""
        ranks = np.array(self.ranks, dtype=np.int32)
        return {"embedding_rows": self.rows, "records": self.records, "linear": self.linear, "ranks": ranks}


def pack_ragged(shape: RaggedShape, vectors: F32, linear: F32) -> RaggedRows:
    """Packed parameters of plain ones."""
    rows = shape.pack(vectors)
    records = np.empty((len(linear), 2), dtype=np.int32)
    records[:, 0] = shape.row_at
    records[:, 1] = shape.folded(rows, linear).view(np.int32)
    return RaggedRows(shape.ranks, rows, records, linear)
