"""A real Redis Cluster for tests: masters that share the slots evenly, and replicas of the first ones."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.redis_server import RedisServer, wait_until

SLOTS = 16384
BUS = 10_000  # a node's bus listens this far above its port
NODE_TIMEOUT_MS = 400


def free_bus_port() -> int:
    """A port that is free together with the one of its bus."""
    while True:
        with socket.socket() as client, socket.socket() as bus:
            client.bind(("127.0.0.1", 0))
            port: int = client.getsockname()[1]
            try:
                bus.bind(("127.0.0.1", port + BUS))
            except (OSError, OverflowError):
                continue
            return port


class ClusterNode(RedisServer):
    """One server in cluster mode."""

    def __init__(self, password: str | None = None) -> None:
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
        )
        self.password = password
        if password is not None:
            self.add_options("--requirepass", password)
        self.port = free_bus_port()

    def add_options(self, *options: str) -> None:
        """For a server that has not been started."""
        self._options += options

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def id(self) -> str:
        return str(self.command("CLUSTER MYID"))


class RedisCluster:
    """`masters` servers, and one replica for each of the first `replicas` of them."""

    def __init__(self, masters: int = 3, replicas: int = 0) -> None:
        self.masters = [ClusterNode() for _ in range(masters)]
        self.replicas = [ClusterNode() for _ in range(replicas)]

    @property
    def nodes(self) -> list[ClusterNode]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(node.address for node in self.masters)}"

    def owner(self, key: bytes | str) -> ClusterNode:
        """The master that the first one names for the key."""
        first = self.masters[0]
        slot = first.command("CLUSTER KEYSLOT", key)
        for low, high, (_, port, *_), *_ in first.command("CLUSTER SLOTS"):  # type: ignore[attr-defined]
            if low <= slot <= high:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody owns slot {slot}")

    def begin_migration(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """From now on the source redirects (ASK) commands for keys of the slot that it does not have."""
        target.command("CLUSTER SETSLOT", slot, "IMPORTING", source.id())
        source.command("CLUSTER SETSLOT", slot, "MIGRATING", target.id())

    def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """All keys of the slot."""
        while keys := source.command("CLUSTER GETKEYSINSLOT", slot, 100):
            assert isinstance(keys, list)
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *keys)

    def end_migration(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """The slot is the target's: all others redirect (MOVED)."""
        for node in (target, source, *self.masters):
            node.command("CLUSTER SETSLOT", slot, "NODE", target.id())

    def migrate(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """All of it."""
        self.begin_migration(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_migration(slot, source, target)

    def start(self) -> None:
        """Start all servers at once, let them meet, and wait until every one of them knows all."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(lambda node: node.start(), self.nodes))
        first, share = self.masters[0], -(-SLOTS // len(self.masters))
        for i, node in enumerate(self.masters):
            node.command("CLUSTER SET-CONFIG-EPOCH", i + 1)
            node.command("CLUSTER ADDSLOTS", *range(i * share, min((i + 1) * share, SLOTS)))
        for node in self.nodes[1:]:
            node.command("CLUSTER MEET", "127.0.0.1", first.port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes), "the nodes meet")
        for replica, master in zip(self.replicas, self.masters, strict=False):
            replica.command("CLUSTER REPLICATE", master.id())
        wait_until(lambda: all(self._is_ready(node) for node in self.nodes), "the cluster is up")

    def _knows_all(self, node: ClusterNode) -> bool:
        known = node.command("CLUSTER NODES")
        assert isinstance(known, dict)
        return len(known) == len(self.nodes) and not any("handshake" in about["flags"] for about in known.values())

    def _is_ready(self, node: ClusterNode) -> bool:
        state = node.command("CLUSTER INFO")
        up = isinstance(state, dict) and state["cluster_state"] == "ok" and state["cluster_slots_ok"] == str(SLOTS)
        roles = [node.command("ROLE") for node in self.replicas]
        return up and all(role[0] == "slave" and role[3] == "connected" for role in roles)  # type: ignore[index]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.__exit__(kind, error, trace)
