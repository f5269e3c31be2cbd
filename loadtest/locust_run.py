"""Locust as a process of its own, headless."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.target import TargetError

HERE = Path(__file__).parent


def locust_run(shape: str, host: str, out: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run the shape (steps, soak) against `host`; Locust's CSV and HTML and the result go to `out`. `TargetError` where
    it ends without a result."""
    result = out / f"{shape}.json"
    result.unlink(missing_ok=True)
    files = f"{HERE / 'locustfile.py'},{HERE / f'{shape}_shape.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--host", host, "--only-summary"]
    command += ["--loglevel", "WARNING", "--csv", str(out / shape), "--csv-full-history"]
    command += ["--html", str(out / f"{shape}.html"), "--result", str(result), *options]
    done = subprocess.run(command, cwd=HERE.parent)
    if not result.exists():
        raise TargetError(f"locust: expected a result of the {shape} shape, found none (exit code {done.returncode})")
    found: dict[str, Any] = json.loads(result.read_text())
    return found
