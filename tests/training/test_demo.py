"""What a container's first start does, and its second."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_export.registry import Registry
from tests.tiny_artefact import publish_tiny
from training import demo


def test_publishes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands are recorded, and the last one's effect stands for all of theirs."""
    commands: list[tuple[str, ...]] = []
    out, registry = tmp_path / "out", tmp_path / "registry"

    def train(*arguments: str, show: bool = True) -> str:
        commands.append(arguments)
        if arguments[0] == "export":
            publish_tiny(registry, name=demo.MODEL)
        return ""

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setenv("CTRANK_DATA", str(tmp_path / "no data"))
    demo.publish(out, registry)
    assert [command[0] for command in commands] == ["synth", "prepare", "fit", "export"]
    assert commands[2][1:4] == (str(out / "prepared"), "--model", "dplr") and "--resume" in commands[2]
    expected = (str(out / "dplr"), "--registry", str(registry), "--name", demo.MODEL, "--activate")
    assert commands[3][1:] == expected
    assert Registry(registry).active(demo.MODEL) == "v000001"
    capsys.readouterr()
    demo.publish(out, registry)
    assert len(commands) == 4
    assert "v000001 is active, nothing to do" in capsys.readouterr().out


def test_an_idle_model_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start that was killed between publishing and activating."""
    publish_tiny(tmp_path, name=demo.MODEL, activate=False)
    commands: list[str] = []
    monkeypatch.setattr(demo, "train", lambda *arguments: commands.append(arguments[0]))
    demo.publish(tmp_path / "out", tmp_path)
    assert commands[-1] == "export"
