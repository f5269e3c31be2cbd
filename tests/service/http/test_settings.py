from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, flag, variable


def test_flag_over_variable_over_default() -> None:
    environ = {"CTRANK_PORT": "1234", "CTRANK_WORKERS": "3", "PATH": "/bin", "CTRANK_DATA": "elsewhere"}
    settings = Settings.read({"port": "99", "host": None}, environ)
    assert (settings.port, settings.workers, settings.host) == (99, 3, "127.0.0.1")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("CTRANK_PORT", "99999", "65535"),
        ("CTRANK_PORT", "http", "integer"),
        ("CTRANK_WORKERS", "0", "greater than or equal to 1"),
        ("CTRANK_REDIS_URL", "http://x", "redis://, rediss://, unix://"),
        ("CTRANK_REDIS_TIMEOUT_MS", "-1", "greater than 0"),
        ("CTRANK_REDIS_TIMEOUT_MS", "nan", "less than or equal"),
        ("CTRANK_CONTEXT_TTL_S", "1.5", "integer"),
        ("CTRANK_LOG_LEVEL", "loud", "'info'"),
        ("CTRANK_ACCESS_LOG", "maybe", "boolean"),
        ("CTRANK_HOST", "", "at least 1"),
    ],
)
def test_bad_value_names_key_value_and_expectation(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({}, {key: value})
    assert key in str(refused.value) and repr(value) in str(refused.value) and expected in str(refused.value)


def test_bad_flag_names_the_flag() -> None:
    with pytest.raises(SettingsError, match="--max-body-bytes='many'"):
        Settings.read({"max_body_bytes": "many"}, {})


@pytest.mark.parametrize("key", ["CTRANK_PROT", "CTRANK_", "CTRANK_port", "CTRANK_REDIS"])
def test_unknown_variable_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key}='1': unknown setting"):
        Settings.read({}, {key: "1"})


def test_secrets_are_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({}, {"CTRANK_ADMIN_KEY": "short"})
    assert "short'" not in str(refused.value) and "***" in str(refused.value)
    assert "long enough" not in repr(Settings.read({}, {"CTRANK_ADMIN_KEY": "long enough"}))


def test_empty_variable_of_an_optional_setting_is_unset() -> None:
    assert Settings.read({}, {"CTRANK_REDIS_URL": ""}).redis_url is None


def test_workers_read_the_same_settings() -> None:
    settings = Settings.read({"registry": "r", "admin_key": "secret-key", "redis_url": "redis://h"}, {})
    again = Settings.read({}, settings.environment())
    assert again == settings and again.registry == Path("r")


def test_every_setting_is_described() -> None:
    for name, info in Settings.model_fields.items():
        assert info.description, name
        assert variable(name) == f"CTRANK_{name.upper()}" and flag(name).startswith("--")
