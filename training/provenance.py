"""Where a figure comes from: the commit of this code and the machine it ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

NOT_CODE = (":!experiments", ":!../tests", ":!../*.md")


def commit() -> str | None:
    """The commit of this source tree, with ``+changes`` after it when its code differs (experiment files and results
    do not count: a figure carries its settings); None outside a git checkout.
    """
    tree = Path(__file__).resolve().parent
    try:
        head = _git(tree, "rev-parse", "--short=12", "HEAD")
        changed = _git(tree, "status", "--porcelain", "--untracked-files=no", "--", "..", *NOT_CODE)
        return head + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, system and versions, ready for JSON."""
    import torch

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def in_words(machine: dict[str, Any]) -> str:
    """One line for people."""
    m = machine
    return (
        f"{m['processor']}, {m['cores']} cores, {m['system']}; Python {m['python']}, NumPy {m['numpy']}, "
        f"PyTorch {m['torch']}"
    )


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _processor() -> str:
    try:
        pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        names = {value.strip() for key, _, value in pairs if key.strip() == "model name"}
    except OSError:
        names = set()
    return ", ".join(sorted(names)) or platform.processor() or platform.machine()
