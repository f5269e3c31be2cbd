"""The outcome of a Locust run: its stages, the checks they must pass, the exit code, the result file."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.checks import Check, answered, soaked, stepped
from loadtest.options import limits_of
from loadtest.stage import Stage, capacity


class Outcome:
    """Filled by the shape, or by the run itself where there is none; judged once at its end."""

    def __init__(self) -> None:
        self.begin("plain", [])

    def begin(self, kind: str, stages: list[Stage]) -> None:
        """A run of a kind (plain, steps, soak) begins; `stages` will grow."""
        self.kind, self.stages = kind, stages

    def checks(self, options: Namespace) -> list[Check]:
        """What the run must pass."""
        limits = limits_of(options)
        own = {"plain": [], "steps": stepped, "soak": soaked}[self.kind]
        return [*answered(self.stages, limits), *(own(self.stages, limits) if callable(own) else [])]

    def judge(self, options: Namespace) -> bool:
        """Print the checks and write the result; whether all passed."""
        checks = self.checks(options)
        for check in checks:
            print(check, flush=True)
        passed = all(check.passed for check in checks)
        result: dict[str, Any] = {
            "kind": self.kind,
            "traffic": options.traffic,
            "seed": options.seed,
            "user_rate_per_s": options.user_rate,
            "stages": [stage.to_dict() for stage in self.stages],
            "checks": [asdict(check) for check in checks],
            "passed": passed,
        }
        if self.kind == "steps":
            result["capacity"] = asdict(capacity(self.stages, options.objective_ms))
        if options.result:
            Path(options.result).write_text(json.dumps(result, indent=1) + "\n")
        return passed


OUTCOME = Outcome()
