"""Real servers that fail over: a Valkey cluster, and a primary that Sentinels watch (fixtures: `tests/servers.py`)."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from ecs_queue.errors import RetryableError
from ecs_queue.local.redis_server import HOST, RedisServer, find_free_port
from tests.wait import wait_until

#: After this time without an answer a server counts as dead. A busy one does not answer either, while it writes
#: megabytes to the disk of a busy machine: what it has not replicated would be lost. So the time is short only after a
#: test has killed one.
_PATIENT_MILLISECONDS, _IMPATIENT_MILLISECONDS = 20_000, 500
_START_ATTEMPTS = 3


class _Deployment:
    """Servers that start together, and end together."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._clients: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every server, and return when the deployment serves."""
        raise NotImplementedError

    def stop(self) -> None:
        """End every server."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._stack.close()

    def client(self, server: RedisServer, password: str | None = None) -> Any:
        """Return a client of one server, closed at the end; it repeats nothing."""
        if server.port not in self._clients:
            self._clients[server.port] = redis.Redis(
                port=server.port, password=password, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
            )
        return self._clients[server.port]

    def wait_until_stable(self) -> None:
        """Return when every server that runs has its place; from now on a busy one does not count as dead."""
        wait_until(self._is_stable, "every server has its place", seconds=30.0)
        self._set_patience(_PATIENT_MILLISECONDS)

    def _kill(self, server: RedisServer) -> RedisServer:
        self._set_patience(_IMPATIENT_MILLISECONDS)
        server.kill()
        return server

    @contextmanager
    def frozen(self, server: RedisServer) -> Iterator[None]:
        """Freeze a server; its connections stay open. The others take it for dead soon."""
        self._set_patience(_IMPATIENT_MILLISECONDS)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server.pid, signal.SIGCONT)

    def _is_stable(self) -> bool:
        raise NotImplementedError

    def _set_patience(self, milliseconds: int) -> None:
        raise NotImplementedError

    def _start_servers(self, servers: Iterable[RedisServer]) -> None:
        started = list(servers)
        for server in started:
            self._stack.callback(server.stop)
        with ThreadPoolExecutor(len(started)) as threads:
            list(threads.map(RedisServer.start, started))


class ValkeyCluster(_Deployment):
    """Three primaries with a replica each, on 127.0.0.1. Every write is kept on disk."""

    def __init__(self, binary: str, *, primaries: int = 3, password: str | None = None) -> None:
        super().__init__()
        self._binary = binary
        self._primaries = primaries
        self.password = password
        self.nodes: list[RedisServer] = []

    @property
    def url(self) -> str:
        """`redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT,...`, with the password if there is one."""
        login = f":{self.password}@" if self.password else ""
        return f"redis+cluster://{login}{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def start(self) -> None:
        """See `_Deployment.start`."""
        with ThreadPoolExecutor(2 * self._primaries) as threads:
            self.nodes = [
                each.result() for each in [threads.submit(self._start_node) for _ in range(2 * self._primaries)]
            ]
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // self._primaries for number in range(self._primaries + 1)]
        ids = []
        for number, node in enumerate(primaries):
            self._call(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self._call(node, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            ids.append(self._call(node, "CLUSTER", "MYID"))
        bus_port = {node.port: int(self.client(node).config_get("cluster-port")["cluster-port"]) for node in self.nodes}
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    self._call(node, "CLUSTER", "MEET", HOST, other.port, bus_port[other.port])
        for pair in zip(replicas, ids, strict=True):
            wait_until(partial(self._try_replicate, *pair), "the replica knows its primary")
        self.wait_until_stable()

    def flush(self) -> None:
        """Remove all data."""
        for node in self.nodes:
            if node.is_running and self._is_primary(node):
                self.client(node).flushall()

    def owner(self, key: str) -> RedisServer:
        """Return the primary of the key's slot."""
        return self._by_port(self._slot_ports(key)[0])

    def replica(self, key: str) -> RedisServer:
        """Return a replica of the key's slot."""
        return self._by_port(self._slot_ports(key)[1])

    def fail_over(self, key: str) -> None:
        """Promote the replica of the key's slot; its primary, which goes on, becomes the replica."""
        replica = self.replica(key)
        self._call(replica, "CLUSTER", "FAILOVER")
        wait_until(lambda: self._is_primary(replica), "the replica is the primary")

    def kill_owner(self, key: str) -> RedisServer:
        """Kill the primary of the key's slot, and return it at once; the cluster promotes the replica by itself."""
        return self._kill(self.owner(key))

    def move_slot(self, key: str, is_interrupted: Callable[[], object] = lambda: None) -> None:
        """Move the key's slot and its keys to another primary, as an operator does by hand.

        Args:
            key: Any key of the slot.
            is_interrupted: Called while the slot is on its way, before its keys are moved.
        """
        slot, source = key_slot(key.encode()), self.owner(key)
        target = next(node for node in self.nodes if node is not source and self._is_primary(node))
        source_id, target_id = (self._call(node, "CLUSTER", "MYID") for node in (source, target))
        self._call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        self._call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        is_interrupted()
        while keys := self._call(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            login = ("AUTH", self.password) if self.password else ()
            self._call(source, "MIGRATE", HOST, target.port, "", 0, 5000, *login, "KEYS", *keys)
        for node in (target, source):
            self._call(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
        self.wait_until_stable()

    def move_slot_at_once(self, key: str) -> None:
        """Move the key's slot to another primary by one command, as Valkey 9 does."""
        slot, source = key_slot(key.encode()), self.owner(key)
        target = next(node for node in self.nodes if node is not source and self._is_primary(node))
        target_id = self._call(target, "CLUSTER", "MYID")
        self._call(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target_id)
        wait_until(lambda: self.owner(key) is target, "the slot has moved")
        self.wait_until_stable()

    def _start_node(self) -> RedisServer:
        """Start a node, with other ports if another program took that of its bus before the node listened there."""
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            node = self._make_node()
            self._stack.callback(node.stop)
            try:
                node.start()
            except RetryableError:
                if not attempts_left:
                    raise
            else:
                return node
        raise AssertionError("unreachable")

    def _make_node(self) -> RedisServer:
        settings = [
            "cluster-enabled yes",
            f"cluster-port {find_free_port()}",
            f"cluster-node-timeout {_IMPATIENT_MILLISECONDS}",
            "cluster-allow-replica-migration no",
            "repl-diskless-sync-delay 0",
        ]
        if self.password:
            settings.append(f"masterauth {self.password}")
        return RedisServer(
            binary=self._binary, appendonly="always", password=self.password, settings=settings, startup_timeout=30.0
        )

    def client(self, server: RedisServer, password: str | None = None) -> Any:
        """See `_Deployment.client`."""
        return super().client(server, password or self.password)

    def _call(self, node: RedisServer, *command: Any) -> Any:
        return self.client(node).execute_command(*command)

    def _try_replicate(self, replica: RedisServer, primary_id: Any) -> bool:
        try:
            self._call(replica, "CLUSTER", "REPLICATE", primary_id)
        except redis.exceptions.ResponseError:
            return False
        return True

    def _is_primary(self, node: RedisServer) -> bool:
        with suppress(redis.exceptions.RedisError):
            return node.is_running and bool(self.client(node).info("replication")["role"] == "master")
        return False

    def _set_patience(self, milliseconds: int) -> None:
        for node in self.nodes:
            if node.is_running:
                self.client(node).config_set("cluster-node-timeout", milliseconds)

    def _is_stable(self) -> bool:
        """Whether every node that runs serves, agrees with the others, and every replica follows its primary."""
        running = [node for node in self.nodes if node.is_running]
        try:
            views = [self._view(node) for node in running]
            replications = [self.client(node).info("replication") for node in running]
        except redis.exceptions.RedisError:
            return False
        follows = all(each["role"] == "master" or each["master_link_status"] == "up" for each in replications)
        if not follows or None in views or any(view != views[0] for view in views):
            return False
        ports = {port for _, _, primary, replicas in views[0] for port in (primary, *replicas)}
        return ports == {node.port for node in running}  # one that is back has found its place

    def _view(self, node: RedisServer) -> Any:
        """What a node takes for the cluster: the ports of each range of slots; None if it does not serve."""
        if b"cluster_state:ok" not in self._call(node, "CLUSTER", "INFO"):
            return None
        slots = self._call(node, "CLUSTER", "SLOTS")
        return sorted((each[0], each[1], each[2][1], sorted(entry[1] for entry in each[3:])) for each in slots)

    def _slot_ports(self, key: str) -> list[int]:
        """The ports of the primary and the replicas of the key's slot, by a node that runs."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            with suppress(redis.exceptions.RedisError):
                for first, last, *servers in self._call(node, "CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return [int(server[1]) for server in servers]
        raise AssertionError("no node knows the slot")

    def _by_port(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)


class SentinelDeployment(_Deployment):
    """A primary, its replica, and Sentinels that watch them, on 127.0.0.1. Every write is kept on disk."""

    SERVICE = "mine"

    def __init__(
        self, binary: str, *, sentinels: int = 1, password: str | None = None, sentinel_password: str | None = None
    ) -> None:
        super().__init__()
        self._binary = binary
        self.password = password
        self.sentinel_password = sentinel_password
        self._sentinel_count = sentinels
        self.nodes: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        """`sentinel://127.0.0.1:PORT,.../0?service=mine`, with the passwords if there are any."""
        login = f":{self.password}@" if self.password else ""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        option = f"&sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        return f"sentinel://{login}{hosts}/0?service={self.SERVICE}{option}"

    def start(self) -> None:
        """See `_Deployment.start`."""
        settings = ["repl-diskless-sync-delay 0", *([f"masterauth {self.password}"] if self.password else [])]
        self.nodes = [
            RedisServer(
                binary=self._binary,
                appendonly="always",
                password=self.password,
                settings=settings,
                startup_timeout=30.0,
            )
            for _ in range(2)
        ]
        self._start_servers(self.nodes)
        primary, replica = self.nodes
        self.client(replica, self.password).replicaof(HOST, primary.port)
        wait_until(lambda: self._follows(replica), "the replica follows")
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        program = Path(directory, "valkey-sentinel")  # the name makes it a Sentinel
        program.symlink_to(self._binary)
        self.sentinels = [self._make_sentinel(str(program), primary.port) for _ in range(self._sentinel_count)]
        self._start_servers(self.sentinels)
        for sentinel in self.sentinels:  # by default it looks at the servers every ten seconds
            periods = ("INFO-PERIOD", 200, "PUBLISH-PERIOD", 200, "ASK-PERIOD", 200)
            self.client(sentinel, self.sentinel_password).execute_command("SENTINEL", "DEBUG", *periods)
        self.wait_until_stable()

    def flush(self) -> None:
        """Remove all data."""
        self.client(self.primary(), self.password).flushall()

    def primary(self) -> RedisServer:
        """Return the primary, as the first Sentinel knows it."""
        state = self._state(self.sentinels[0])
        return next(node for node in self.nodes if node.port == int(state["port"]))

    def fail_over(self) -> None:
        """Promote the replica; its primary, which goes on, becomes the replica."""
        before = self.primary()
        wait_until(self._try_fail_over, "the Sentinel takes the replica for fit")
        wait_until(lambda: self.primary() is not before, "another primary")

    def kill_primary(self) -> RedisServer:
        """Kill the primary, and return it at once; the Sentinels promote the replica by themselves."""
        return self._kill(self.primary())

    def _make_sentinel(self, program: str, primary_port: int) -> RedisServer:
        quorum = self._sentinel_count // 2 + 1
        settings = [
            f"sentinel monitor {self.SERVICE} {HOST} {primary_port} {quorum}",
            f"sentinel down-after-milliseconds {self.SERVICE} {_IMPATIENT_MILLISECONDS}",
            f"sentinel failover-timeout {self.SERVICE} 3000",
        ]
        if self.password:
            settings.append(f"sentinel auth-pass {self.SERVICE} {self.password}")
        return RedisServer(binary=program, password=self.sentinel_password, settings=settings, startup_timeout=30.0)

    def _try_fail_over(self) -> bool:
        sentinel = self.client(self.sentinels[0], self.sentinel_password)
        try:
            sentinel.execute_command("SENTINEL", "FAILOVER", self.SERVICE)
        except redis.exceptions.ResponseError as error:
            if str(error).startswith("NOGOODSLAVE"):  # its last look at the replica was before that followed
                return False
            raise
        return True

    def _follows(self, node: RedisServer) -> bool:
        found = self.client(node, self.password).info("replication")
        return bool(found["role"] == "slave" and found["master_link_status"] == "up")

    def _state(self, sentinel: RedisServer) -> dict[str, str]:
        """What a Sentinel says of the primary; not with redis-py's own method, which fails in 6.4."""
        client = self.client(sentinel, self.sentinel_password)
        found = client.execute_command("SENTINEL", "MASTER", self.SERVICE)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode(): value.decode() for name, value in pairs}

    def _set_patience(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            setting = ("down-after-milliseconds", milliseconds)
            self.client(sentinel, self.sentinel_password).execute_command("SENTINEL", "SET", self.SERVICE, *setting)

    def _is_stable(self) -> bool:
        """Whether every Sentinel knows the primary, its replica, if it runs, and the other Sentinels."""
        try:
            primary = self.primary()
            followers = [node for node in self.nodes if node is not primary and node.is_running]
            states = [self._state(sentinel) for sentinel in self.sentinels]
            return all(self._follows(node) for node in followers) and all(
                state["flags"] == "master"
                and int(state["num-slaves"]) >= len(followers)
                and int(state["num-other-sentinels"]) == len(self.sentinels) - 1
                and int(state["port"]) == primary.port
                for state in states
            )
        except redis.exceptions.RedisError:
            return False
