"""`CTRANK_REDIS_URL`: one server, a Redis Cluster, or a master behind Sentinels.

    redis://[user:password@]host[:6379][/db][?options]
    unix://[user:password@]/path/to/socket[?db=0&options]
    redis+cluster://[user:password@]host[:6379][,host[:port]...][?options]
    redis+sentinel://[user:password@]host[:26379][,host[:port]...]/master[/db][?options]

With `rediss` for `redis` connections are encrypted, those to the Sentinels too. User, password and options (redis-py's:
`ssl_ca_certs`, `ssl_check_hostname`, `client_name`...) are those of the servers that hold the data; Sentinels share the
`ssl_` options and take `sentinel_username` and `sentinel_password`. A cluster's hosts are those that are asked for its
nodes; it has no database but 0.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from service.context_cache.redis_endpoint import Address, Endpoint, SentinelMaster, Server

_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::(?P<port>[0-9]{1,5}))?")
_PARTS = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)


class RedisTarget(NamedTuple):
    """What a URL leads to: an endpoint or, for a cluster, the servers that its nodes are asked of.

    `name` is the URL without user, password and options, fit for a log.
    """

    endpoint: Endpoint | None
    seeds: tuple[Server, ...]
    name: str


def parse_redis_url(url: str) -> RedisTarget:
    """Check a URL and take it apart. Raises `ValueError` that names the part, and never shows a password."""
    parts = _PARTS.fullmatch(url)
    if parts is None or parts["scheme"] not in _SCHEMES:
        raise ValueError(f"expected a URL that begins with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    scheme, _, kind = parts["scheme"].partition("+")
    name = f"{parts['scheme']}://{parts['hosts']}{parts['path']}"
    if scheme == "unix":
        return RedisTarget(Server.from_url(url), (), name)
    if parts["fragment"]:
        raise ValueError("expected no # (in a password it is written as %23)")
    hosts = [_host(host, 26379 if kind == "sentinel" else 6379) for host in parts["hosts"].split(",")]
    path = [unquote(step) for step in parts["path"][1:].split("/")] if len(parts["path"]) > 1 else []
    user = f"{parts['user']}@" if parts["user"] else ""
    options = _options(parts["query"] or "")
    if kind == "cluster":
        if path not in ([], ["0"]) or options.get("db", "0") != "0":
            raise ValueError("a Redis Cluster has no database but 0: expected nothing after the hosts")
        server = Server.from_url(f"{scheme}://{user}{hosts[0]}?{urlencode(options)}")
        return RedisTarget(None, tuple(server.at(host) for host in hosts), name)
    if kind == "sentinel":
        if not path or not path[0]:
            raise ValueError(
                "expected the name of the master after the Sentinels, as in redis+sentinel://host:26379/mymaster"
            )
        master, *path = path
        of_sentinels = {key: value for key, value in options.items() if key.startswith("ssl_")}
        for key in ("username", "password"):
            if (value := options.pop(f"sentinel_{key}", None)) is not None:
                of_sentinels[key] = value
        sentinel = Server.from_url(f"{scheme}://{hosts[0]}?{urlencode(of_sentinels)}")
        server = Server.from_url(f"{scheme}://{user}{hosts[0]}{_database(path)}?{urlencode(options)}")
        return RedisTarget(SentinelMaster([sentinel.at(host) for host in hosts], master, server), (), name)
    if len(hosts) > 1:
        raise ValueError(f"{len(hosts)} hosts: expected one, or {scheme}+cluster:// or {scheme}+sentinel://")
    return RedisTarget(Server.from_url(f"{scheme}://{user}{hosts[0]}{_database(path)}?{urlencode(options)}"), (), name)


def masked(url: str) -> str:
    """The URL with what may be secret replaced, however wrong it is."""
    url = re.sub(r"^((?:rediss?|unix)(?:\+\w+)?://)?.*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", url, flags=re.DOTALL)


def _host(text: str, default_port: int) -> Address:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < (port := int(found["port"] or default_port)) < 65536:
        raise ValueError(
            "expected host, host:port or [IPv6]:port, several of them separated by commas, after the user and password "
            "(where /, ?, # and @ are written as %2F, %3F, %23 and %40)"
        )
    return Address(found["ipv6"] or unquote(found["name"]), port)


def _database(path: list[str]) -> str:
    if not path:
        return ""
    if len(path) > 1 or not re.fullmatch("[0-9]{1,9}", path[0]):
        raise ValueError("expected the number of a database as the last part of the path")
    return f"/{path[0]}"


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    empty = sorted(key for key, value in options.items() if not value)
    if empty:
        raise ValueError(f"option {empty[0]!r}: expected a value")
    return options
