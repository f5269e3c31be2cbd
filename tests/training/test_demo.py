"""What a container's first start does, and its second."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_export.reader import read_artefact
from models_export.registry import Registry
from training import demo
from training.cli import main


def test_publishes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process instead of one per command, on a log that trains at once."""
    commands: list[str] = []

    def train(*arguments: str, show: bool = True) -> str:
        commands.append(arguments[0])
        assert main([*arguments, *(["--epochs", "1"] if arguments[0] == "fit" else [])]) == 0
        return ""

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "SYNTHETIC_ROWS", 3000)
    monkeypatch.setenv("CTRANK_DATA", str(tmp_path / "no data"))
    registry = tmp_path / "registry"
    demo.publish(tmp_path / "out", registry)
    assert commands == ["synth", "prepare", "fit", "export"]
    assert Registry(registry).active(demo.MODEL) == "v000001"
    assert read_artefact(registry / demo.MODEL / "v000001").manifest.family == "dplr"
    demo.publish(tmp_path / "out", registry)
    assert len(commands) == 4
    assert "v000001 is active, nothing to do" in capsys.readouterr().out
