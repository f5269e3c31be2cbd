"""Claims of a paper that an experiment checks: each kind says, of the figures here, whether it holds and by how much.

    { better = "A", than = "B" }                         A is better than B on the mean over the seeds
    { better = "A", than = "B", by = 0.05 }              ... by at least 5 % of B's figure
    { better = "A", than = "B", significance = 0.05 }    ... and the paired t-test over the seeds has p < 0.05
    { order = ["A", "B", "C"] }                          A better than B, B better than C
    { best = "A", of = ["B", "C"] }                      A better than each of the others
    { row = "A", near = "published", within = 0.05 }     A within 5 % of the figure in that column
    { row = "A", over = "B", at_most = 1.1 }             A's figure divided by B's (``at_least`` likewise)
    { row = "A", at_least = 0.98 }                       A's figure itself (``at_most`` likewise)

Every claim may name a ``metric``; without one it is about the experiment's first. Better is lower or higher as the
metric has it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from training.errors import UsageError
from training.measures import find_measure
from training.paired_test import paired_p

KEYS = {
    "better": ({"better", "than"}, {"by", "significance"}),
    "order": ({"order"}, set()),
    "best": ({"best", "of"}, set()),
    "near": ({"row", "near", "within"}, set()),
    "over": ({"row", "over"}, {"at_least", "at_most"}),
    "row": ({"row"}, {"at_least", "at_most"}),
}


class Figures(Protocol):
    """What a claim is checked against."""

    def values(self, label: str, metric: str) -> dict[int, float]:
        """A row's figures by seed."""

    def published(self, label: str, column: str, metric: str) -> float | None:
        """A published figure of a row, None if there is none."""


@dataclass(frozen=True)
class Verdict:
    """A claim in words, whether it holds, and the figures that say so."""

    claim: str
    holds: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.claim}: **{'holds' if self.holds else 'does NOT hold'}** ({self.detail})"


@dataclass(frozen=True)
class Claim:
    """One claim: its ``kind`` (a key of ``KEYS``), the metric it is about, the rows it names, and its limits."""

    kind: str
    metric: str
    rows: tuple[str, ...]
    column: str = ""
    limits: Mapping[str, float] | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], first_metric: str) -> Claim:
        """From a table of the experiment file; UsageError for keys that do not make a claim."""
        found = set(raw) - {"metric"}
        kind = next((kind for kind in KEYS if kind in found), "")
        needed, optional = KEYS.get(kind, (set(), set()))
        limits = {key: float(raw[key]) for key in found & {"by", "significance", "within", "at_least", "at_most"}}
        limited = kind not in ("over", "row") or limits
        if not kind or not needed <= found <= needed | optional or not limited:
            raise UsageError(f"claim {dict(raw)}: expected the keys of one kind of claim (see experiments/README.md)")
        metric = raw.get("metric", first_metric)
        find_measure(metric)
        named = [raw[key] for key in ("better", "than", "order", "best", "of", "row", "over") if key in raw]
        rows = [label for labels in named for label in (labels if isinstance(labels, list) else [labels])]
        return cls(kind, metric, tuple(rows), raw.get("near", ""), limits)

    def check(self, figures: Figures) -> Verdict:
        """The verdict on the figures."""
        return {
            "better": self._better, "order": self._order, "best": self._best,
            "near": self._near, "over": self._ratio, "row": self._limit,
        }[self.kind](figures)  # fmt: skip

    def _limit_of(self, name: str) -> float | None:
        return (self.limits or {}).get(name)

    def _mean(self, figures: Figures, label: str) -> float:
        return statistics.fmean(figures.values(label, self.metric).values())

    def _better(self, figures: Figures) -> Verdict:
        measure = find_measure(self.metric)
        a, b = (figures.values(label, self.metric) for label in self.rows)
        seeds = sorted(a.keys() & b.keys())
        gains = [measure.gain(a[s], b[s]) for s in seeds]
        mean, base = statistics.fmean(gains), statistics.fmean(b[s] for s in seeds)
        relative = mean / abs(base) if base else 0.0
        p = paired_p(gains)
        by, significance = self._limit_of("by"), self._limit_of("significance")
        holds = mean > 0 and (by is None or relative >= by) and (significance is None or p is None or p < significance)
        claim = f"{self.rows[0]} beats {self.rows[1]} on {self.metric}"
        claim += f" by at least {by:.1%}" if by else ""
        claim += f" with p < {significance:g}" if significance else ""
        test = f", paired t-test p = {p:.2g}" if p is not None else ", no paired test with one seed"
        wins = sum(g > 0 for g in gains)
        detail = f"mean gain {mean:+.5f}, {relative:+.2%}; better on {wins} of {len(gains)} seeds{test}"
        return Verdict(claim, holds, detail)

    def _order(self, figures: Figures) -> Verdict:
        means = [self._mean(figures, label) for label in self.rows]
        measure = find_measure(self.metric)
        holds = all(measure.better(a, b) for a, b in pairwise(means))
        return Verdict(f"{' before '.join(self.rows)} on {self.metric}", holds, self._written(self.rows, means))

    def _best(self, figures: Figures) -> Verdict:
        means = [self._mean(figures, label) for label in self.rows]
        measure = find_measure(self.metric)
        holds = all(measure.better(means[0], other) for other in means[1:])
        ranked = sorted(zip(means, self.rows, strict=True), reverse=not measure.lower_is_better)[:3]
        detail = "in order " + self._written([label for _, label in ranked], [mean for mean, _ in ranked])
        return Verdict(f"{self.rows[0]} is the best of {', '.join(self.rows)} on {self.metric}", holds, detail)

    def _near(self, figures: Figures) -> Verdict:
        (label,) = self.rows
        mean, published = self._mean(figures, label), figures.published(label, self.column, self.metric)
        if published is None:
            raise UsageError(f"claim: expected a figure {self.metric!r} of {label!r} in {self.column!r}, found none")
        off, within = mean / published - 1, self._limit_of("within") or 0.0
        claim = f"{label} within {within:.1%} of the {self.metric} in {self.column!r}"
        return Verdict(claim, abs(off) <= within, f"{self._written([label], [mean])} against {published:g}, {off:+.2%}")

    def _ratio(self, figures: Figures) -> Verdict:
        means = [self._mean(figures, label) for label in self.rows]
        ratio = means[0] / means[1] if means[1] else math.inf
        claim = f"{self.metric} of {self.rows[0]} over {self.rows[1]}'s {self._limits_in_words()}"
        return Verdict(claim, self._inside(ratio), f"ratio {ratio:.3f}; {self._written(self.rows, means)}")

    def _limit(self, figures: Figures) -> Verdict:
        (label,) = self.rows
        mean = self._mean(figures, label)
        claim = f"{self.metric} of {label} {self._limits_in_words()}"
        return Verdict(claim, self._inside(mean), self._written([label], [mean]))

    def _inside(self, value: float) -> bool:
        low, high = self._limit_of("at_least"), self._limit_of("at_most")
        return (low is None or value >= low) and (high is None or value <= high)

    def _limits_in_words(self) -> str:
        limits = self.limits or {}
        return " and ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in sorted(limits.items()))

    def _written(self, labels: list[str] | tuple[str, ...], means: list[float]) -> str:
        measure = find_measure(self.metric)
        return ", ".join(f"{label} {measure.write(mean)}" for label, mean in zip(labels, means, strict=True))
