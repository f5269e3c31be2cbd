"""The first start on a machine: kernels are compiled once, by two processes at a time, while later ones wait.

Numba compiles a kernel when its module is imported and keeps it on disk. Compiling takes seconds, so that the kernels
are split: a helper process compiles those that read contexts, items and ids, this one all others and those of the
first model's family; then it loads the helper's from disk.
A marker beside the precomputed item sides says that these sources have been compiled for this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

from models_export.reader import Artefact

logger = logging.getLogger("ctrank")

CONTEXTS, ITEMS, IDS = (f"service.kernels.scan_{what}" for what in ("context", "items", "ids"))
AFTER = "service.kernels.rank_body"  # needs CONTEXTS
_PACKAGE = Path(__file__).parent / "kernels"


def compile_kernels(folder: Path, artefact: Artefact) -> None:
    """Fill the kernel cache if it is not known to be full; `folder` holds the marker. `artefact`: the model that is
    about to be loaded; kernels of other families are compiled when one is.

    Several processes may call this at once: one compiles, the others wait. Nothing here is needed for a right answer:
    a kernel that is missing after all is compiled when its module is imported.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / f"kernels-{_key()}.compiled"
        if marker.exists():
            return
        with open(folder / "kernels.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not marker.exists():
                logger.info("compiling kernels: the first start on this machine takes some seconds")
                _compile(artefact)
                marker.touch()
    except OSError as error:
        logger.warning("kernels are compiled by each process: %s", error)


def _compile(artefact: Artefact) -> None:
    names = [f"service.kernels.{path.stem}" for path in sorted(_PACKAGE.glob("*.py")) if path.stem != "__init__"]
    if len(os.sched_getaffinity(0)) == 1:
        for name in names:
            importlib.import_module(name)
        return
    command = [sys.executable, "-c", f"import {CONTEXTS}; print(flush=True); import {ITEMS}, {IDS}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as helper:
        assert helper.stdout is not None
        for name in names:
            if name not in (CONTEXTS, ITEMS, IDS, AFTER):
                importlib.import_module(name)
        from service.scorers.numba_scorer import FAMILIES

        family = FAMILIES.get(artefact.manifest.family)
        scorer = None if family is None else family(artefact)
        compiled = None if scorer is None else scorer.compiled()
        helper.stdout.readline()
        importlib.import_module(AFTER)
        if scorer is not None and compiled is not None:
            from service.kernels.rank_body import rank_body_kernel
            from service.kernels.rank_ids import rank_ids_kernel

            rank_body_kernel(scorer.vector_size, compiled[0].compute)
            rank_ids_kernel(scorer.vector_size)


def _key() -> str:
    """What a compiled kernel depends on: its sources, the compiler, the processor, and where it is kept."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.glob("*.py")):
        digest.update(path.read_bytes())
    place = os.environ.get("NUMBA_CACHE_DIR", "")
    digest.update(
        repr((version("numba"), version("llvmlite"), sys.version, _processor(), str(_PACKAGE), place)).encode()
    )
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor that Numba compiles for: the one that is named to it, or this machine's."""
    if name := os.environ.get("NUMBA_CPU_NAME"):
        return f"{name} {os.environ.get('NUMBA_CPU_FEATURES', '')}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), "")
