"""Errors of the service, grouped by the stage that finds them; each owns its status code.

Every reply that is not a success is an RFC 9457 problem document (`application/problem+json`) with `type`, `title`,
`status`, `detail` and, where one field is at fault, `field`. Stages, in the order in which a request meets them:
transport (bytes) -> request (shape) -> look-up (names) -> value (encoding) -> state (the server's own).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class ServiceError(Exception):
    """An error with a problem document. `field` names the request's member or the model's field at fault."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field

    def problem(self) -> Problem:
        """The problem document of this error."""
        return Problem(f"urn:ctrank:problem:{self.slug}", self.title, self.status, self.detail, self.field)


# Transport: the bytes themselves.


class MalformedBody(ServiceError):
    """The body is not UTF-8 JSON (NaN and Infinity are not JSON), or is nested too deeply."""

    status, slug, title = 400, "malformed-body", "Malformed body"


class BodyTooLarge(ServiceError):
    """The body is larger than `max_body_bytes`."""

    status, slug, title = 413, "body-too-large", "Body too large"

    @classmethod
    def over(cls, limit: int) -> BodyTooLarge:
        """For a body over `limit` bytes."""
        return cls(f"expected a body of at most {limit} bytes (max_body_bytes); send fewer candidates at a time")


class UnsupportedMediaType(ServiceError):
    """The content type is not `application/json`."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class NotFound(ServiceError):
    """No such path."""

    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(ServiceError):
    """The path exists, the method on it does not."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


# Request: JSON, but not a request.


class InvalidRequest(ServiceError):
    """A member is unknown, missing, of a wrong type, out of range, or contradicts another one."""

    status, slug, title = 422, "invalid-request", "Invalid request"


# Look-up: names that nothing answers to.


class UnknownModel(ServiceError):
    """No such model in the registry, or no default model."""

    status, slug, title = 404, "unknown-model", "Unknown model"


class UnknownVersion(ServiceError):
    """The model has no such version."""

    status, slug, title = 404, "unknown-version", "Unknown version"


class UnknownContext(ServiceError):
    """A `context_id` without `context`, and nothing is cached under it for this model version."""

    status, slug, title = 404, "unknown-context", "Unknown context"


# Value: a field's value that the model's encoder refuses.


class InvalidValue(ServiceError):
    """An unknown field, a value of a wrong type, a number that is not finite, a list that is too long."""

    status, slug, title = 422, "invalid-value", "Invalid value"


# Access: administration.


class MissingKey(ServiceError):
    """An administration request without `X-Admin-Key`."""

    status, slug, title = 401, "missing-key", "Missing admin key"


class WrongKey(ServiceError):
    """An administration request with another key, or on a server that was started without one."""

    status, slug, title = 403, "wrong-key", "Administration refused"


# State: the server's own.


class ActivationRefused(ServiceError):
    """The version cannot be activated (it does not verify), or there is nothing to roll back to."""

    status, slug, title = 409, "activation-refused", "Activation refused"


class NotReady(ServiceError):
    """Models are still loading or warming up."""

    status, slug, title = 503, "not-ready", "Not ready"


class ModelUnavailable(ServiceError):
    """A published version that does not load."""

    status, slug, title = 503, "model-unavailable", "Model unavailable"


class NotServable(ModelUnavailable):
    """A sound version whose scorer is not there (ONNX Runtime, or graphs for it): other models are served."""
