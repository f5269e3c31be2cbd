"""A target without a server."""

from __future__ import annotations

from loadtest.target import ContextField, Target


def small_target(items: int = 5000, named: bool = False) -> Target:
    fields = (
        ContextField("user", "categorical", tuple(f"u{i}" for i in range(500))),
        ContextField("recent", "multi", tuple(f"i{i}" for i in range(50))),
        ContextField("age", "numeric", ()),
    )
    return Target("clicks", "v000001", named, fields, tuple(f"i{i}" for i in range(items)))
