from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from service.context_cache import build_cache
from service.context_cache.redis_endpoint import SentinelMaster, Server
from service.context_cache.redis_url import masked, parse_redis_url
from service.settings import Settings, SettingsError


def options(server: Any, *names: str) -> tuple[Any, ...]:
    assert isinstance(server, Server)
    return (server._class, *(server._options.get(name) for name in names))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", (Connection, "h", 6379, None, None, None)),
        ("redis://h:1/2", (Connection, "h", 1, 2, None, None)),
        ("redis://u:p%2F%40w@h/", (Connection, "h", 6379, None, "u", "p/@w")),
        ("rediss://:pw@[::1]:7/0", (SSLConnection, "::1", 7, 0, None, "pw")),
        ("redis://h?db=3&password=a%20b%2Bc", (Connection, "h", 6379, 3, None, "a b+c")),
    ],
)
def test_one_server(url: str, expected: tuple[Any, ...]) -> None:
    target = parse_redis_url(url)
    assert not target.seeds
    assert options(target.endpoint, "host", "port", "db", "username", "password") == expected


def test_unix_socket() -> None:
    target = parse_redis_url("unix:///run/redis.sock?db=2")
    assert options(target.endpoint, "path", "db") == (UnixDomainSocketConnection, "/run/redis.sock", 2)
    assert target.name == "unix:///run/redis.sock"


@pytest.mark.parametrize(("scheme", "connection"), [("redis", Connection), ("rediss", SSLConnection)])
def test_cluster(scheme: str, connection: type[Any]) -> None:
    ca = "&ssl_ca_certs=ca.pem" if scheme == "rediss" else ""
    target = parse_redis_url(f"{scheme}+cluster://u:p%2Cw@a:1,b,[::1]:3/0?client_name=c{ca}")
    assert target.endpoint is None and target.name == f"{scheme}+cluster://a:1,b,[::1]:3/0"
    assert [tuple(seed.address) for seed in target.seeds] == [("a", 1), ("b", 6379), ("::1", 3)]
    for seed in target.seeds:
        assert options(seed, "username", "password", "client_name") == (connection, "u", "p,w", "c")
        assert seed._options.get("ssl_ca_certs") == ("ca.pem" if ca else None)


def test_sentinel() -> None:
    target = parse_redis_url(
        "rediss+sentinel://u:pw@a:1,b/my%2Fmaster/4?sentinel_username=s&sentinel_password=sp&ssl_check_hostname=false"
    )
    master = target.endpoint
    assert isinstance(master, SentinelMaster) and not target.seeds and master._name == "my/master"
    assert options(master._server, "db", "username", "password", "ssl_check_hostname") == (
        *(SSLConnection, 4, "u", "pw"),
        False,
    )
    assert [tuple(sentinel.address) for sentinel in master._sentinels] == [("a", 1), ("b", 26379)]
    for sentinel in master._sentinels:  # the Sentinels have an account and no database of their own
        assert options(sentinel, "db", "username", "password", "ssl_check_hostname") == (
            *(SSLConnection, None, "s", "sp"),
            False,
        )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://:s3cret@h", "redis+sentinel://"),
        ("redis:s3cret@h", "redis+sentinel://"),
        ("redis+clusters://:s3cret@h", "redis+cluster://"),
        ("redis://", "host:port"),
        ("redis://:s3/cret@h:1/0", "%2F"),
        ("redis://:s3cret@h:port", "host:port"),
        ("redis://:s3cret@h:70000", "host:port"),
        ("redis+cluster://:s3cret@a:1,,b:2", "host:port"),
        ("redis+cluster://:s3cret@a:1;b:2", "host:port"),
        ("redis+cluster://::1", "[IPv6]:port"),
        ("redis://:s3cret@a:1,b:2", "2 hosts: expected one, or redis+cluster:// or redis+sentinel://"),
        ("redis://:s3cret@h/zero", "number of a database"),
        ("redis://:s3cret@h/1/2", "number of a database"),
        ("redis+cluster://:s3cret@h/1", "no database but 0"),
        ("redis+cluster://:s3cret@h?db=1", "no database but 0"),
        ("redis+sentinel://:s3cret@h", "redis+sentinel://host:26379/mymaster"),
        ("redis+sentinel://:s3cret@h/", "redis+sentinel://host:26379/mymaster"),
        ("redis+sentinel://:s3cret@h/m/x", "number of a database"),
        ("redis+sentinel://:s3cret@h/m/0/0", "number of a database"),
        ("redis://:s3cret@h?password=s3cret&colour=blue", "option 'colour'"),
        ("redis+cluster://:s3cret@h?sentinel_password=s3cret", "option 'sentinel_password'"),
        ("redis+sentinel://:s3cret@h/m?sentinel_pasword=s3cret", "option 'sentinel_pasword'"),
        ("redis://:s3cret@h?ssl_ca_certs=ca.pem", "rediss"),
        ("redis://:s3cret@h?client_name=", "option 'client_name': expected a value"),
        ("redis://:s3cret@h?db=x", "db"),
        ("redis://:s3cret@h#fragment", "%23"),
        ("redis://:s3#cret@h", "%23"),
        ("redis://:s3?cret@h", "%3F"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str, expected: str) -> None:
    for refuse, kind in (
        (lambda: Settings.read({}, {"CTRANK_REDIS_URL": url}), SettingsError),
        (lambda: build_cache(redis_url=url), ValueError),
    ):
        with pytest.raises(kind) as refused:
            refuse()
        assert expected in str(refused.value)
        assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+cluster://u:p@a:1,b:2/0?password=x&y=1", "redis+cluster://***@a:1,b:2/0?***"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@w@h", "redis://***@h"),
        ("redis:u:p@h", "***@h"),
        ("rediss+sentinel://h/m?sentinel_password=x", "rediss+sentinel://h/m?***"),
    ],
)
def test_masked(url: str, expected: str) -> None:
    assert masked(url) == expected
