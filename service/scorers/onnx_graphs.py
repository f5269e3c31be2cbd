"""ONNX Runtime over one artefact's graphs: a session for each, one copy of the weights for all.

On the CPU a session maps the weights file into memory, so that all sessions and all workers share its pages, and arrays
are read where they are. On a GPU every tensor is copied to the device once and handed to all sessions, and inputs and
outputs are bound, so that what is resident there is never copied again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from models_export.reader import Artefact
from models_export.tensor_file import parse_tensors, read_bytes_map
from service.scorers.onnx_provider import CPU, OnnxUnavailable, Provider, import_runtime

Array: TypeAlias = npt.NDArray[Any]
WEIGHTS = "weights.safetensors"
LOG_ERRORS = 3  # severity; what a user can act on is raised
CONTEXT = "context.onnx"
GRAPHS = (CONTEXT, "item.onnx", "rank.onnx", "candidates.onnx", "catalogue.onnx", "score.onnx")


class Graphs:
    """Sessions of one artefact. Thread-safe. ``threads`` work on one run, without spinning between runs.

    The context graph always runs on the CPU, by one thread: it reads one row, a way to a GPU and back takes longer.
    """

    def __init__(self, artefact: Artefact, provider: Provider, threads: int) -> None:
        self._runtime = import_runtime()
        self.provider = provider
        self._device = "cpu" if provider.name == "cpu" else provider.name
        tensors = _tensors(artefact) if provider.bound else {}
        self._owners = {name: self._value(array) for name, array in tensors.items()}
        # Sessions share memory that none of them owns, and a copy on a device is its value's: hence a view of it.
        self._shared = {name: self._runtime.OrtValue.from_dlpack(owner) for name, owner in self._owners.items()}
        self._sessions: dict[str, Any] = {}
        for name in GRAPHS:
            where, how_many = (CPU, 1) if name == CONTEXT else (provider, threads)
            self._sessions[name] = self._session(artefact, name, where, how_many)

    def _session(self, artefact: Artefact, name: str, provider: Provider, threads: int) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = LOG_ERRORS
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_mem_pattern = False  # kept for every shape ever seen, and slates have all lengths
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider.bound:
            for tensor, value in self._shared.items():
                options.add_initializer(tensor, value)
        session = self._runtime.InferenceSession(str(artefact.path / name), options, providers=provider.for_session())
        used = session.get_providers()[0]
        if not used.lower().startswith(provider.name):
            raise OnnxUnavailable(f"{name}: expected the {provider.name} provider, ONNX Runtime took {used}")
        return session

    def _value(self, array: Array) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def size_of(self, name: str, output: int = 0) -> int:
        """The last, fixed dimension of a graph's output."""
        return int(self._sessions[name].get_outputs()[output].shape[-1])

    def resident(self, array: Array) -> Any:
        """An array as an input that stays on the device. Keep it for as long as it is used."""
        return self._value(array) if self.provider.bound else array

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Array]:
        """Run a graph on arrays and ``resident`` values; the outputs as arrays of this process."""
        session = self._sessions[name]
        if name == CONTEXT or not self.provider.bound:
            return session.run(outputs, inputs)  # type: ignore[no-any-return]
        binding = session.io_binding()
        for key, value in inputs.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(key, value)
            else:
                binding.bind_ortvalue_input(key, value)
        for key in outputs:
            binding.bind_output(key, "cpu")
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()  # type: ignore[no-any-return]


def _tensors(artefact: Artefact) -> dict[str, Array]:
    """The tensors of the weights file as the graphs declare them."""
    tensors: dict[str, Array] = dict(parse_tensors(WEIGHTS, read_bytes_map(artefact.path / WEIGHTS)))
    if artefact.manifest.family == "rafm":
        tensors["embedding_rows"] = tensors["embedding_rows"].reshape(-1, 8)
        tensors["records_floats"] = tensors["records"].view(np.float32)
    return tensors
