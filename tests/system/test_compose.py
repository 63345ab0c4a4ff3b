"""conf/compose.yaml: what its services run works as plain processes, with the same commands and the same files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecs_queue.calls.executor import EcsExecutor
from ecs_queue.client.client import EcsQueue
from ecs_queue.local.redis_server import find_free_port
from tests.calls.functions import add
from tests.conf_check import fill_in
from tests.docs import ROOT
from tests.processes import run_worker
from tests.prometheus_package import find_program
from tests.servers import skip_or_fail, valkey_binary
from tests.wait import wait_until

CONF = ROOT / "conf"
VARIABLES = {"VALKEY_PASSWORD": "word1", "GRAFANA_PASSWORD": "word2"}  # no real ones
WORKER_PORTS = ("9464", "9465")


def read_services() -> Any:
    """Return the services, with values in place of the variables, as Compose reads them."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: VARIABLES[found[1]], (CONF / "compose.yaml").read_text())
    return yaml.safe_load(text.replace("$$", "$"))["services"]


SERVICES = read_services()


class Processes:
    """The services as processes on free ports, in place of the names and ports that they have in containers."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.ports = {port: str(find_free_port()) for port in ("6379", "8480", "8999", "9090", *WORKER_PORTS)}

    def translate(self, text: str) -> str:
        """Return a text with the ports, addresses and folders of this machine."""
        text = re.sub(r"\b(?:valkey|local-ecs|prometheus):(?=\d)", "127.0.0.1:", text)
        text = re.sub(r"\b(6379|8480|8999|9090|9464|9465)\b", lambda found: self.ports[found[1]], text)
        text = text.replace("0.0.0.0", "127.0.0.1").replace("dir /data", f"dir {self._folder}\nbind 127.0.0.1")
        return text.replace("/tmp/ecs-tasks", f"{self._folder}/tasks")

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service, with the programs on PATH that its image has."""
        path = (str(Path(sys.executable).parent), str(Path(valkey_binary()).parent), os.environ["PATH"])
        values = SERVICES[service].get("environment", {})
        return {"PATH": os.pathsep.join(path), "PYTHONPATH": str(ROOT)} | {
            name: self.translate(value) for name, value in values.items()
        }

    def start(self, service: str, *entry_point: str, arguments: Sequence[str] = ()) -> None:
        """Run a service until the end of the test; `arguments` stand for those of the file."""
        command = [*entry_point, *map(self.translate, arguments or SERVICES[service]["command"])]
        log = self._folder / f"{service}.log"
        self._stack.enter_context(run_worker(self.environment(service), log, command=command))

    def is_healthy(self, service: str) -> bool:
        """Run the health check of a service."""
        kind, *command = map(self.translate, SERVICES[service]["healthcheck"]["test"])
        assert kind == "CMD"
        return not subprocess.run(
            command, env=self.environment(service), stderr=subprocess.DEVNULL, timeout=30
        ).returncode

    def run(self, *arguments: str) -> str:
        """Run `ecs-queue` in the place of the local ECS, as the head of the file does, and return its stdout."""
        command = (sys.executable, "-m", "ecs_queue", *arguments)
        environment = self.environment("local-ecs")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask Prometheus' API."""
        url = f"http://127.0.0.1:{self.ports['9090']}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(tmp_path, stack)


def require(program: str) -> str:
    """Return the path of Prometheus or promtool, or end the test."""
    return find_program(program) or skip_or_fail(program, "make prometheus")


def start_prometheus(processes: Processes, folder: Path) -> None:
    """Start Debian's Prometheus with the files that are mounted, and a second in place of their 15."""
    prometheus = require("prometheus")
    for mount in SERVICES["prometheus"]["volumes"]:
        source, target = mount.split(":")[:2]
        if source.startswith("./"):
            text = processes.translate((CONF / source).read_text()).replace("_interval: 15s", "_interval: 1s")
            (folder / Path(target).name).write_text(text)
    arguments = [
        option.replace("/etc/prometheus", str(folder)).replace("=/prometheus", f"={folder}/tsdb")
        for option in SERVICES["prometheus"]["command"]
    ]
    processes.start("prometheus", prometheus, arguments=[*arguments, "--web.listen-address=0.0.0.0:9090"])


def is_up(processes: Processes) -> bool:
    try:
        series = processes.ask("/api/v1/query", query='up{job="ecs-queue"}')["result"]
    except OSError:  # it starts
        return False
    return [each["value"][1] for each in series] == ["1", "1"]


def test_the_stack_says_hello_and_prometheus_scrapes_both_workers(processes: Processes, tmp_path: Path) -> None:
    processes.start("valkey")
    processes.start("local-ecs", sys.executable, "-m", "ecs_queue")
    wait_until(lambda: processes.is_healthy("local-ecs"))
    for worker in ("worker-1", "worker-2"):
        processes.start(worker, sys.executable, "-m", "ecs_queue")
    wait_until(lambda: processes.is_healthy("worker-1") and processes.is_healthy("worker-2"))
    assert processes.run("submit", "--wait", "--logs", "--", "echo", "hello") == "hello\n"

    for port in WORKER_PORTS:
        page = urllib.request.urlopen(f"http://127.0.0.1:{processes.ports[port]}/metrics", timeout=10).read()
        checked = subprocess.run((require("promtool"), "check", "metrics"), input=page, capture_output=True, timeout=30)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")

    start_prometheus(processes, tmp_path)
    wait_until(lambda: is_up(processes))
    wait_until(lambda: all(rule["lastEvaluation"][:4] != "0001" for rule in read_rules(processes)))
    assert [(rule["name"], rule["lastError"]) for rule in read_rules(processes) if rule["health"] != "ok"] == []
    firing = [rule["name"] for rule in read_rules(processes) if rule["state"] == "firing"]
    assert firing == []
    panels = json.loads((CONF / "grafana-dashboard.json").read_text())["panels"]
    for target in (target for panel in panels for target in panel.get("targets", ())):
        processes.ask("/api/v1/query", query=fill_in(target["expr"]))
    ended = processes.ask("/api/v1/query", query='max(ecs_queue_requests_ended_total{state="SUCCESS"})')
    assert ended["result"][0]["value"][1] == "1"


def test_the_page_of_the_stack_shows_its_queues_after_the_log_in_that_its_log_has(
    processes: Processes, tmp_path: Path
) -> None:
    processes.start("valkey")
    processes.start("web", sys.executable, "-m", "ecs_queue")
    wait_until(lambda: processes.is_healthy("web"))
    log_in = re.search(r"http://\S+", (tmp_path / "web.log").read_text())
    assert log_in is not None
    assert log_in[0].startswith(f"http://127.0.0.1:{processes.ports['8480']}/login?token=")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(log_in[0], timeout=60) as answer:
        text = answer.read().decode()
    assert "<h2>Queues" in text
    assert "Logged in." in text


def test_a_function_runs_in_a_container_of_the_stack(processes: Processes) -> None:
    processes.start("valkey")
    processes.start("local-ecs", sys.executable, "-m", "ecs_queue")
    wait_until(lambda: processes.is_healthy("local-ecs"))
    processes.start("worker-1", sys.executable, "-m", "ecs_queue")
    wait_until(lambda: processes.is_healthy("worker-1"))
    with (
        EcsQueue.from_config(environ=processes.environment("local-ecs")) as queue,
        EcsExecutor(queue, environment={"PYTHONPATH": str(ROOT)}) as executor,
    ):
        assert executor.submit(add, 2, 3).result(60) == 5


def read_rules(processes: Processes) -> list[Mapping[str, Any]]:
    groups = processes.ask("/api/v1/rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_no_port_is_open_to_other_machines_and_no_image_is_the_latest() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert re.fullmatch(r"[\w/-]+:v?\d[\w.]*", service["image"]), name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name


def test_the_file_has_no_password_and_each_comes_from_the_environment() -> None:
    text = (CONF / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == VARIABLES.keys()
    for line in text.splitlines():
        if re.match(r"\s*\w*PASSWORD\w*:", line):
            assert re.search(r": \$\{\w+:\?", line), line


def test_every_file_that_is_mounted_exists_and_grafana_finds_the_dashboard_and_prometheus() -> None:
    mounts = dict(
        mount.split(":")[:2] for service in SERVICES.values() for mount in service.get("volumes", ()) if mount[0] == "."
    )
    assert all((CONF / source).is_file() for source in mounts)
    (provider,) = yaml.safe_load((CONF / "grafana-dashboards.yaml").read_text())["providers"]
    assert Path(mounts["./grafana-dashboard.json"]).parent == Path(provider["options"]["path"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == mounts["./grafana-dashboard.json"]
    (source,) = yaml.safe_load((CONF / "grafana-datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scraping = yaml.safe_load((CONF / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
