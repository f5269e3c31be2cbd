"""The figures of one stage, and the capacity that a series of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf, isfinite, sqrt
from typing import Any

KEPT_UP = 0.95  # of the offered requests: a client that sent fewer is the limit itself


@dataclass(frozen=True)
class Stage:
    """Constant load on one server for some seconds. Latencies in milliseconds, from when a request was due to its
    last byte."""

    server: str  # ctrank or floor
    offered_per_s: float
    achieved_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    seconds: float
    requests: int
    errors: int
    lost_contexts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    cores_used: float | None = None  # processor seconds of the service per second
    memory_bytes: float | None = None

    @property
    def kept_up(self) -> bool:
        """Whether the client sent what was offered and got it answered, as far as chance (three standard deviations
        of a Poisson count) lets that be told."""
        expected = self.offered_per_s * self.seconds
        return self.achieved_per_s * self.seconds >= KEPT_UP * expected - 3 * sqrt(expected)

    def meets(self, objective_ms: float) -> bool:
        """Whether the load was served: p99 within the objective, nothing left over."""
        return self.p99_ms <= objective_ms and self.kept_up

    def __str__(self) -> str:
        cores = "" if self.cores_used is None else f", {self.cores_used:.2f} cores"
        return (
            f"{self.server:>6}: {self.offered_per_s:>7,.0f}/s offered, {self.achieved_per_s:>7,.0f}/s answered, "
            f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, {self.errors} errors{cores}"
        )

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Stage:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {k: inf if v is None and k.endswith("_ms") else v for k, v in found.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a latency that was never reached is null."""
        return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Capacity:
    """The highest load that met the objective, with every lower one, and what stopped it.

    `limit` is `service`; or `client` where the client did not keep up with the floor application at the next load
    either, or no higher load was tried: then the figure is a lower bound.
    """

    per_s: float
    limit: str
    objective_ms: float
    cores_used: float | None
    requests_per_core_s: float | None  # by the processor time that the service took at that load

    def describe(self) -> str:
        """One line."""
        bound = "at least " if self.limit == "client" else ""
        line = f"capacity at p99 <= {self.objective_ms:g} ms: {bound}{self.per_s:,.0f} requests/s"
        if self.limit == "client":
            line += " (the client is the limit)"
        if self.cores_used is not None and self.requests_per_core_s is not None:
            line += f", {self.cores_used:.2f} cores used: {self.requests_per_core_s:,.0f} requests per core-second"
        return line


def loads(stages: Sequence[Stage], server: str, objective_ms: float) -> list[Stage]:
    """One stage per load of a server, ascending. Of several at one load the majority decides whether it is met (a draw
    is a miss), and the worst of that majority stands for the load: noise of a shared machine must not decide alone."""
    votes: dict[float, dict[bool, list[Stage]]] = {}
    for stage in stages:
        if stage.server == server:
            at = votes.setdefault(stage.offered_per_s, {True: [], False: []})
            at[stage.meets(objective_ms)].append(stage)
    winners = [at[len(at[True]) > len(at[False])] for _, at in sorted(votes.items())]
    return [max(some, key=lambda stage: stage.p99_ms) for some in winners]


def undecided(stages: Sequence[Stage], objective_ms: float, pass_at_once: bool) -> bool:
    """Whether a load must be measured (again): until two agree or, with `pass_at_once`, one met it or two missed."""
    met = sum(stage.meets(objective_ms) for stage in stages)
    missed = len(stages) - met
    return max(met, missed) < 2 and not (pass_at_once and len(stages) == met == 1)


def capacity(stages: Sequence[Stage], objective_ms: float) -> Capacity:
    """The capacity that `stages` of rising load show; those of the floor tell the client's own limit."""
    best: Stage | None = None
    broken_at = inf
    for stage in loads(stages, "ctrank", objective_ms):
        if not stage.meets(objective_ms):
            broken_at = stage.offered_per_s
            break
        best = stage
    at_break = [s for s in loads(stages, "floor", objective_ms) if s.offered_per_s >= broken_at]
    client = broken_at == inf or (bool(at_break) and not at_break[0].meets(objective_ms))
    limit = "client" if client else "service"
    if best is None:
        return Capacity(0.0, limit, objective_ms, None, None)
    per_core = best.achieved_per_s / best.cores_used if best.cores_used else None
    return Capacity(best.achieved_per_s, limit, objective_ms, best.cores_used, per_core)
