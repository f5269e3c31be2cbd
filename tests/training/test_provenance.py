"""Where a figure comes from: the commit is that of the code, and says when the code differs from it."""

from __future__ import annotations

import subprocess

import training.provenance as provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_and_changes(tmp_path, monkeypatch):
    package = tmp_path / "training"
    (package / "experiments").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "service").mkdir()
    files = ["training/provenance.py", "training/experiments/a.toml", "tests/a.py", "service/a.py", "README.md"]
    for name in files:
        (tmp_path / name).write_text("first\n")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.commit() is None, "not a checkout yet"
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = provenance.commit()
    assert clean is not None and len(clean) == 12
    for name, counts in zip(files, (True, False, False, True, False), strict=True):
        (tmp_path / name).write_text("second\n")
        assert provenance.commit() == clean + ("+changes" if counts else ""), name
        (tmp_path / name).write_text("first\n")
    (tmp_path / "notes.txt").write_text("not tracked\n")
    assert provenance.commit() == clean


def test_the_machine_is_told():
    machine = provenance.machine()
    words = provenance.in_words(machine)
    assert machine["cores"] >= 1 and machine["processor"] in words and f"PyTorch {machine['torch']}" in words
