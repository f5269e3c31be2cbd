"""The deployment's files, parsed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def load(path: Path) -> Any:
    """The only YAML document of a file."""
    return yaml.safe_load(path.read_text())


def documents(path: Path) -> list[dict[str, Any]]:
    """All YAML documents of a file."""
    return [found for found in yaml.safe_load_all(path.read_text()) if found is not None]


def compose() -> dict[str, Any]:
    """The compose file with the defaults of its variables."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())
    assert "${" not in text, "a variable without a default"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def dashboard() -> dict[str, Any]:
    """Grafana's dashboard."""
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "ctrank.json").read_text())
    return found


def instructions() -> list[tuple[str, str, str]]:
    """The Dockerfile as (stage, instruction, rest), with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found, stage = [], ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        found.append((stage, word, rest))
    return found
