"""Drawings that an experiment file may ask for beside its table, one module each.

``PLOTS`` is the registry: name -> ``draw(result, figure, *, options...) -> caption``. ``result`` is the
:class:`~training.reproduction.Reproduction` (its figures, run folders and prepared data), ``figure`` an empty
matplotlib figure; the keyword-only arguments are the options of ``[[plots]]``, those without a default being required.
The caption goes under the picture: say what is seen, not what was hoped for.

Draw from what the runs left (figures, weights, prepared data), never from the test labels of rows that are still to be
tuned. Matplotlib is imported inside ``draw``, so that reading an experiment file stays cheap.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from training.errors import UsageError
from training.plots import curve, long_tail, loss_landscape, noise, table

PLOTS: dict[str, Callable[..., str]] = {
    "table": table.draw,
    "curve": curve.draw,
    "noise": noise.draw,
    "loss_landscape": loss_landscape.draw,
    "long_tail": long_tail.draw,
}


def check_plot(kind: str, options: Mapping[str, Any]) -> None:
    """UsageError where there is no such plot or it does not take these options."""
    if kind not in PLOTS:
        raise UsageError(f"plot {kind!r}: expected one of {', '.join(PLOTS)}")
    try:
        inspect.signature(PLOTS[kind]).bind(None, None, **options)
    except TypeError as error:
        raise UsageError(f"plot {kind!r}: {error}") from None
