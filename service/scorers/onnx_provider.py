"""Where ONNX Runtime runs: on an NVIDIA GPU, or on the CPU; found out once, with the remedy where it cannot be."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

import numpy as np

logger = logging.getLogger("ctrank")

Wanted = Literal["auto", "cuda", "cpu"]

INSTALL = "install one of the two: pip install 'ctrank[onnx]' (CPU), or pip install 'ctrank[gpu]' (NVIDIA GPU)"
SWITCH = "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'ctrank[gpu]'"
DRIVER = (
    "it needs an NVIDIA driver (nvidia-smi shows the GPU) and the CUDA and cuDNN libraries of the installed "
    "onnxruntime-gpu: pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
CPU_INSTEAD = "or serve on the CPU: CTRANK_ONNX_PROVIDER=cpu"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


class OnnxUnavailable(Exception):
    """ONNX Runtime, the provider asked for, or an artefact's graphs are not there; the message ends with the remedy."""


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    ``bound``: inputs and outputs go through I/O binding and sessions share weights as device tensors; on the CPU arrays
    are read where they are anyway. ``most_floats``: intermediate results of one run are kept below so many floats.
    """

    name: str
    bound: bool
    most_floats: int
    options: tuple[tuple[str, Any], ...] = field(default=())

    def for_session(self) -> list[Any]:
        """The ``providers`` of a session."""
        if self.name == "cpu":
            return ["CPUExecutionProvider"]
        return [("CUDAExecutionProvider", dict(self.options)), "CPUExecutionProvider"]


CPU = Provider("cpu", bound=False, most_floats=1 << 22)
CUDA = Provider(
    "cuda",
    bound=True,
    most_floats=1 << 28,
    # TF32 keeps 10 bits of a factor: scores would differ from the CPU's in the third decimal.
    options=(("device_id", "0"), ("use_tf32", "0"), ("arena_extend_strategy", "kSameAsRequested")),
)


@functools.cache
def find_provider(wanted: Wanted) -> Provider:
    """The provider for ``wanted``; with ``auto`` the GPU where there is one, else the CPU, which the log says once.

    Raises ``OnnxUnavailable``: ONNX Runtime is not installed, or ``cuda`` was asked for and does not start.
    """
    runtime = import_runtime()
    installed = _installed()
    if len(installed) > 1:
        both = f"{' and '.join(installed)} are both installed and overwrite one another's files"
        if wanted == "cuda":
            raise OnnxUnavailable(f"{both}; {SWITCH}")
        logger.warning("%s; uninstall both, then %s", both, INSTALL)
    if wanted == "cpu":
        return CPU
    reason, remedy = _obstacle(runtime, installed)
    if reason is None:
        return CUDA
    if wanted == "cuda":
        raise OnnxUnavailable(f"CTRANK_ONNX_PROVIDER=cuda: {reason}; {remedy}, {CPU_INSTEAD}")
    logger.warning("ONNX Runtime runs on the CPU: %s (CTRANK_ONNX_PROVIDER=cpu is silent)", reason)
    return CPU


def import_runtime() -> Any:
    """The onnxruntime module. Raises ``OnnxUnavailable``."""
    try:
        import onnxruntime
    except ImportError as error:
        raise OnnxUnavailable(f"ONNX Runtime is not installed ({error}); {INSTALL}") from error
    return onnxruntime


def _installed() -> list[str]:
    """The packages that hold an onnxruntime, with their versions."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _obstacle(runtime: Any, installed: list[str]) -> tuple[str | None, str]:
    """Why CUDA does not run, and the remedy; ``None`` if it does."""
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return f"{' and '.join(installed) or 'this onnxruntime'} is built without CUDA", SWITCH
    if not hasattr(runtime.OrtValue, "from_dlpack"):
        return f"{' and '.join(installed)} is too old to share weights on a device (1.26 and later can)", SWITCH
    try:
        if hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()
        runtime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:
        return f"the CUDA provider does not start ({str(error).strip().splitlines()[0][:200]})", DRIVER
    return None, ""
