"""A rank request of the usual kind from body to reply in one compiled call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.catalogue import Catalogue
from service.kernels.catalogue import GROUP
from service.kernels.item_json import ITEM_BYTES
from service.kernels.now import compiled_now
from service.kernels.pending import new_pending
from service.kernels.plan import Plan
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.rank_body import ARRAYS, NUMBER_NAMES, SLOT_NAMES, TAIL_BYTES, rank_body_kernel
from service.kernels.rank_ids import OTHERWISE
from service.kernels.scan_known_ids import work_words
from service.ranking.field_tables import FieldTables
from service.ranking.inline_items import CatalogueLookUp
from service.ranking.limits import Limits
from service.ranking.ranked import CatalogueIds

_MOST_BYTES = 1 << 20
_CONTEXT_BYTES = 16_384
_MOST_IDS = 16_384
_MOST_K = 1000
_ID_BYTES = 6 * 32  # room for a usual id, every byte escaped
_CLOCK_TOLERANCE_S = 0.01


@dataclass(frozen=True)
class Meters:
    """Where the kernel counts: ``values`` float64, the bounds of the histograms' buckets, and the slot of each of
    ``SLOT_NAMES``."""

    values: npt.NDArray[np.float64]
    buckets: npt.NDArray[np.float64]
    slots: Mapping[str, int]

    @classmethod
    def discarded(cls) -> Meters:
        """For a call whose metrics nobody wants."""
        return cls(np.zeros(2), np.zeros(0), dict.fromkeys(SLOT_NAMES, 0))


@dataclass(frozen=True)
class RankingParts:
    """What the kernel needs of a model."""

    name: str
    fields: FieldTables
    look_up: CatalogueLookUp
    ids: CatalogueIds
    catalogue: Catalogue
    program: ContextProgram
    query: QueryForm
    largest_state: float
    sigmoid: tuple[float, float]
    limits: Limits


class WholeRequest:
    """Answers usual requests to one model. It owns its work space: one thread at a time.

    ``head`` is the reply up to its items.
    """

    def __init__(self, parts: RankingParts, head: bytes, meters: Meters) -> None:
        slope, shift = parts.sigmoid
        numbers = dict(
            bias=parts.program.bias,
            half=parts.query.h,
            largest_state=parts.largest_state,
            slope=slope,
            shift=shift,
            max_values=parts.limits.max_values_per_field,
            head_bytes=len(head),
        )
        records, offsets, _ = parts.ids.text()
        kept: dict[str, npt.NDArray[Any]] = dict(
            name=np.frombuffer(parts.name.encode(), np.uint8),
            fields=parts.fields.array,
            ids=parts.look_up.array,
            records=records,
            offsets=offsets,
            g=parts.catalogue.g,
            beta=parts.catalogue.beta,
            table=parts.program.table,
            first=parts.program.first,
            second=parts.program.second,
            scratch=parts.program.scratch,
            w=parts.query.w,
            u=parts.query.u,
            j=parts.query.j,
            numbers=np.array([numbers[name] for name in NUMBER_NAMES], np.float64),
            metrics=meters.values,
            buckets=meters.buckets,
            slots=np.array([meters.slots[name] for name in SLOT_NAMES], np.int64),
        )
        work = _work_space(parts, slope != 0.0, len(head))
        self._text: npt.NDArray[np.uint8] = work["text"]
        self._text[: len(head)] = np.frombuffer(head, np.uint8)
        self._reply = self._text.data
        self._names = [spec.name for spec in parts.fields.fields]
        self._unknown: npt.NDArray[np.int32] = work["unknown"]
        self._plan = Plan(ARRAYS, kept | work)
        self._array = self._plan.array
        self._kernel = rank_body_kernel(parts.catalogue.g.shape[1], parts.program.compute)
        self._tables = parts  # the addresses in `fields` and `look_up` are theirs

    def answer(self, body: bytes, started: float, named: bool = False) -> bytes | None:
        """The reply to ``body`` (UTF-8), which was there at ``started`` (``perf_counter``), counted; ``None``, and
        nothing counted, for a request that the separate steps have to answer. A body that names a model must name this
        one; one that names none is refused if ``named``."""
        if len(body) > _MOST_BYTES:
            return None
        length, self.n_unknown = self._kernel(self._array, np.frombuffer(body, np.uint8), started, named)
        return None if length == OTHERWISE else self._reply[:length].tobytes()

    def unknown_values(self) -> dict[str, int]:
        """How many context values of which field the model had never seen, in the request answered last."""
        return {name: n for name, n in zip(self._names, self._unknown.tolist(), strict=True) if n}


def clock_agrees() -> bool:
    """Whether compiled code reads the clock of ``perf_counter``, as it does on Linux."""
    return bool(abs(compiled_now(np.zeros(2, np.int64)) - perf_counter()) < _CLOCK_TOLERANCE_S)


def _work_space(parts: RankingParts, with_probability: bool, head_bytes: int) -> dict[str, npt.NDArray[Any]]:
    n_single, n_multi = parts.fields.n_single, parts.fields.n_multi
    values = _CONTEXT_BYTES // 2 + n_multi + 2
    size = parts.catalogue.g.shape[1]
    most_ids = min(_MOST_IDS, parts.limits.max_candidates)
    return dict(
        rows=np.empty((1, n_single), np.int32),
        indptr=np.zeros(n_multi + 1, np.int64),
        multi_rows=np.empty(values, np.int32),
        weights=np.empty(values, np.float32),
        unknown=np.empty(len(parts.fields.fields), np.int32),
        starts=np.empty(n_multi, np.int64),
        counts=np.empty(n_multi, np.int64),
        pool_rows=np.empty(values, np.int32),
        pool_weights=np.empty(values, np.float32),
        pending=new_pending(_CONTEXT_BYTES if n_multi else 0),
        state=np.empty(1 + size, np.float32),
        a=np.empty(size, np.float32),
        index=np.empty(most_ids + GROUP, np.int32),
        chunks=np.empty(work_words(_MOST_BYTES), np.int64),
        group=np.empty(GROUP, np.float32),
        places=np.empty(_MOST_K, np.int32),
        best=np.empty(_MOST_K, np.int32),
        scores=np.empty(_MOST_K, np.float32),
        probabilities=np.empty(_MOST_K if with_probability else 0, np.float64),
        text=np.empty(head_bytes + _MOST_K * (ITEM_BYTES + _ID_BYTES) + ITEM_BYTES + TAIL_BYTES, np.uint8),
        clock=np.zeros(2, np.int64),
    )
