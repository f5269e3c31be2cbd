"""The service's settings: read once, strictly, from `CTRANK_*` environment variables and command-line flags.

A flag wins over its variable, a variable over the default. An unknown variable or a value that is not valid stops
the start with the key, the value and what was expected; nothing is skipped with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

PREFIX = "CTRANK_"
# Variables that share the prefix but belong to other programs of the project.
FOREIGN = frozenset({"CTRANK_DATA"})


def _checked_redis_url(url: str) -> str:
    from service.context_cache.redis_url import parse_redis_url  # a service without Redis does not load its client

    parse_redis_url(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_checked_redis_url)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def _masked(url: str) -> str:
    from service.context_cache.redis_url import masked

    return repr(masked(url))


# How an error shows the value of a setting that holds a secret.
_SHOWN: dict[str, Callable[[Any], str]] = {"admin_key": lambda key: "***", "redis_url": _masked}


class SettingsError(Exception):
    """A setting that is unknown or not valid; the message names key, value and expectation."""


class Settings(BaseModel):
    """Everything that can be configured. Units are in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: Path = Field(Path("registry"), description="folder of published models")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one")
    wait_for_model: bool = Field(
        False, description="start without an active model (not ready) and wait for one, instead of refusing to start"
    )
    workers: int = Field(1, ge=1, le=256, description="worker processes; they share one copy of the weights")
    default_model: ModelName | None = Field(None, description="model for requests that name none")
    admin_key: SecretStr | None = Field(
        None, min_length=8, description="key for activate and rollback (X-Admin-Key header); none: both are refused"
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="shared context tier: redis://host:port/db, redis+cluster://host:port,..., "
        "redis+sentinel://host:port,.../master/db, rediss for TLS; none: the embedded store",
    )
    redis_timeout_ms: float = Field(5.0, gt=0, le=10_000, description="longest wait of a request for Redis")
    context_ttl_s: int = Field(3600, ge=1, le=31_536_000, description="life of a cached context")
    context_max_age_ms: float = Field(
        1000.0, ge=0, le=3_600_000, description="longest time a context is served from memory without re-reading it"
    )
    context_memory_entries: int = Field(
        65_536, ge=1, le=100_000_000, description="cached contexts held in memory by each worker"
    )
    context_store: Path | None = Field(
        None, description="folder of the embedded shared context store; none: a temporary one"
    )
    max_body_bytes: int = Field(16 << 20, ge=1024, le=1 << 31, description="largest request body (413 above it)")
    max_candidates: int = Field(100_000, ge=1, le=10_000_000, description="most candidates of one slate")
    max_values_per_field: int = Field(16_384, ge=1, le=1_000_000, description="most values of one multi-valued field")
    max_instances: int = Field(10_000, ge=1, le=1_000_000, description="most instances of one /score request")
    max_catalogue_top_k: int = Field(10_000, ge=1, le=1_000_000, description="largest top_k over the whole catalogue")
    cache_dir: Path | None = Field(
        None, description="folder of precomputed item sides; none: inside the user's cache folder"
    )
    metrics_dir: Path | None = Field(None, description="folder of the workers' metric files; none: a temporary one")
    threads: int = Field(2, ge=1, le=256, description="threads for large slates, whole catalogues and model loading")
    offload_us: float = Field(
        1000.0, ge=0, le=1e9, description="estimated cost above which a request leaves the event loop for a thread"
    )
    scorer: Literal["numba", "onnx"] = Field(
        "numba", description="what scores: compiled kernels or ONNX Runtime; networks always take ONNX Runtime"
    )
    onnx_provider: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="where ONNX Runtime runs; auto: on the GPU if there is one, else on the CPU"
    )
    onnx_batch_us: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="how long a request waits for others to share a run of ONNX Runtime with, "
        "0 not at all; none: 200 on a GPU, 0 on the CPU",
    )
    poll_ms: float = Field(250.0, ge=10, le=600_000, description="how often the registry's active pointers are read")
    max_loaded_versions: int = Field(4, ge=1, le=1000, description="pinned older versions kept loaded, all models")
    keep_alive_s: int = Field(75, ge=1, le=3600, description="idle time after which a connection is closed")
    shutdown_s: int = Field(30, ge=1, le=3600, description="time that requests in flight get after SIGTERM")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field("info", description="log level")
    access_log: bool = Field(False, description="one log line per request (costs throughput)")

    @classmethod
    def read(cls, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from `environ` (default: the process's), overridden by `flags` (field name -> raw value).

        Raises `SettingsError` for an unknown variable or a value that is not valid.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for key, raw in environ.items():
            if not key.startswith(PREFIX) or key in FOREIGN:
                continue
            name = key.removeprefix(PREFIX).lower()
            if name not in cls.model_fields or key != variable(name):
                raise SettingsError(f"{key}={raw!r}: unknown setting{_suggestion(name)}")
            if raw == "" and cls.model_fields[name].default is None:
                continue  # compose files hand on unset variables as empty strings
            values[name], sources[name] = raw, key
        for name, raw in (flags or {}).items():
            if raw is not None:
                values[name], sources[name] = raw, flag(name)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            shown = _SHOWN.get(name, repr)(values[name])
            message = first["msg"].removeprefix("Value error, ")
            expected = message[0].lower() + message[1:]
            about = cls.model_fields[name].description
            raise SettingsError(f"{sources[name]}={shown}: {expected} ({name}: {about})") from None

    def environment(self) -> dict[str, str]:
        """The settings as `CTRANK_*` variables, so that worker processes read the very same ones."""
        out: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None:
                out[variable(name)] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return out


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(Settings.model_fields), n=1)
    hint = f"did you mean {variable(close[0])}?" if close else "see `ctrank-serve run --help` for the known ones"
    return f"; expected a known CTRANK_ variable, {hint}"
