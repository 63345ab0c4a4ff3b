"""What the doctor says of a server, on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from ecs_queue.doctor.server import check_server, is_loopback
from ecs_queue.findings import Finding, Severity
from ecs_queue.ledger.server_versions import AofBarrier, aof_barrier
from ecs_queue.local.redis_server import RedisServer
from tests.replicated_servers import ValkeyCluster
from tests.servers import valkey_binary


def found(url: str, durability: str = "server", role: str = "ledger") -> dict[str, Finding]:
    return {finding.check: finding for finding in check_server(role, url, durability, 2.0)}


def test_a_good_server_is_ok(own_redis: RedisServer) -> None:
    findings = found(own_redis.url)
    assert {finding.severity for finding in findings.values()} == {Severity.OK}
    assert "appendfsync always" in findings["server.persistence"].text
    assert set(findings) == {
        "server.reachable",
        "server.clock",
        "server.transport",
        "server.eviction",
        "server.persistence",
    }


def test_a_server_that_may_evict_is_an_error(own_redis: RedisServer) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.close()
    finding = found(own_redis.url)["server.eviction"]
    assert finding.severity is Severity.ERROR
    assert "noeviction" in finding.advice


def test_a_nearly_full_server_is_a_warning(own_redis: RedisServer) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.config_set("maxmemory", "1gb")
    assert found(own_redis.url)["server.memory"].severity is Severity.OK
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 1000)
    client.close()
    assert found(own_redis.url)["server.memory"].severity is Severity.WARNING


def test_a_server_without_persistence_is_a_warning(redis_url: str) -> None:
    assert found(redis_url)["server.persistence"].severity is Severity.WARNING


def test_a_durability_of_replicas_without_one_is_an_error(redis_url: str) -> None:
    assert found(redis_url, "replica")["server.persistence"].prevents_launches


def test_everysec_alone_is_a_warning(own_redis: RedisServer) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.config_set("appendfsync", "everysec")
    is_aof_durable = aof_barrier(client.info("server")) is AofBarrier.DURABLE
    client.close()
    finding = found(own_redis.url)["server.persistence"]
    assert finding.severity is Severity.WARNING
    assert ("aof" in finding.advice) is is_aof_durable  # no advice names a durability that this server does not keep


def test_aof_with_everysec_is_an_error_where_the_server_confirms_early(tmp_path: Path) -> None:
    with RedisServer(binary=valkey_binary(), data_dir=tmp_path, appendonly="everysec") as server:
        assert "aof" not in found(server.url)["server.persistence"].advice
        finding = found(server.url, "aof")["server.persistence"]
        assert (finding.severity, "appendfsync always" in finding.text) == (Severity.ERROR, True)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "always")
        assert found(server.url, "aof")["server.persistence"].severity is Severity.OK


def test_a_broker_of_its_own_need_not_be_durable(redis_url: str) -> None:
    assert "server.persistence" not in found(redis_url, durability="", role="broker")


def test_a_replica_is_an_error(own_redis: RedisServer, redis_server: RedisServer) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.replicaof("127.0.0.1", redis_server.port)
    client.close()
    finding = found(own_redis.url)["server.role"]
    assert (finding.severity, "primary" in finding.advice) == (Severity.ERROR, True)


def test_a_user_without_permissions_gets_infos_and_no_error(own_redis: RedisServer) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.acl_setuser("lean", enabled=True, passwords=["+hunter2"], commands=["+ping", "+client"])
    client.close()
    findings = found(own_redis.url.replace("redis://", "redis://lean:hunter2@"))
    assert findings["server.version"].severity is Severity.INFO
    assert "server.clock" not in findings
    assert {finding.severity for finding in findings.values()} == {Severity.OK, Severity.INFO}
    assert not any("hunter2" in repr(finding) for finding in findings.values())


def test_a_wrong_password_is_an_error_and_is_not_shown(own_redis: RedisServer) -> None:
    findings = found(own_redis.url.replace("redis://", "redis://unknown:hunter2@"))
    assert findings["server.reachable"].severity is Severity.ERROR
    assert "hunter2" not in repr(findings)


def test_an_unreachable_server_is_an_error_with_advice() -> None:
    (finding,) = check_server("broker", "redis://127.0.0.1:1/0", "", 1.0)
    assert (finding.check, finding.severity) == ("server.reachable", Severity.ERROR)
    assert finding.text.startswith("the broker failed")
    assert "ledger_url" not in finding.text
    assert "broker_url" in finding.advice


@pytest.mark.parametrize(("ahead", "level"), [(1.0, Severity.OK), (30.0, Severity.WARNING), (-600.0, Severity.ERROR)])
def test_a_wrong_clock_is_reported(redis_url: str, ahead: float, level: Severity) -> None:
    import time

    findings = check_server("ledger", redis_url, "server", 2.0, wall_clock=lambda: time.time() + ahead)
    (clock,) = [finding for finding in findings if finding.check == "server.clock"]
    assert clock.severity is level


def test_a_slow_server_is_a_warning(redis_url: str) -> None:
    ticks = iter(range(1000))
    findings = check_server("ledger", redis_url, "server", 2.0, monotonic=lambda: float(next(ticks)))
    assert next(iter(findings)).severity is Severity.WARNING


def test_only_this_machine_is_loopback() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("")


def test_the_url_of_one_node_of_a_cluster_is_told_to_name_several(valkey_cluster: ValkeyCluster) -> None:
    node = valkey_cluster.nodes[0]
    assert "redis+cluster://" in found(node.url)["server.cluster"].advice
    assert "server.cluster" not in found(node.url.replace("redis://", "redis+cluster://"))
