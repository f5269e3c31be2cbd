"""The hand-written C loops: compiled beside the benchmark, in the same run, for the same machine."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from service.bench.errors import BenchmarkError

SOURCES = Path(__file__).parent / "c_loops"
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-lm")


class CompilerError(BenchmarkError):
    """No C compiler, or one that fails on our sources."""


class CLoops:
    """The compiled loops: each a foreign function; ``compiler`` and ``kind`` say what made them."""

    def __init__(self, library: ctypes.CDLL, compiler: str) -> None:
        self.compiler = compiler
        library.vector_kind.restype = ctypes.c_char_p
        self.kind: str = library.vector_kind().decode()
        for name in ("dplr", "fm", "fwfm", "pruned_fwfm", "rafm", "llfm", "llfm_jo", "touch"):
            getattr(library, name).restype = None
        self.library = library


def find_compiler() -> list[str]:
    """The compiler's command: ``CC``, else ``cc``; ``CompilerError`` when it is not on the PATH."""
    name = os.environ.get("CC") or "cc"
    command = shlex.split(name)
    if shutil.which(command[0]) is None:
        raise CompilerError(
            f"C compiler: expected {name!r} on the PATH, found none; install gcc or clang, or name one in CC"
        )
    return command


def compile_loops() -> CLoops:
    """Compile ``c_loops/*.c`` into a temporary folder and load them.

    ``CompilerError`` when there is no compiler or when it fails, with its own message.
    """
    command = find_compiler()
    with tempfile.TemporaryDirectory(prefix="ctrank-bench-") as folder:
        target = Path(folder) / "loops.so"
        sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
        done = subprocess.run([*command, *FLAGS, *sources, "-o", str(target)], capture_output=True, text=True)
        if done.returncode:
            raise CompilerError(f"C compiler {command[0]!r} failed on {SOURCES}: {done.stderr.strip()}")
        library = ctypes.CDLL(str(target))
    version = subprocess.run([*command, "--version"], capture_output=True, text=True).stdout.splitlines()
    return CLoops(library, f"{version[0] if version else command[0]}, {' '.join(FLAGS[:2])}")
