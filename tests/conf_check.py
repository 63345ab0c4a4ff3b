"""Checks the files of conf/ with tools of their formats: ``python -m tests.conf_check BIN``, as `make conf-check` does.

BIN has hadolint, kubernetes-validate, cfn-lint and check-jsonschema. systemd-analyze comes with systemd, promtool with
Prometheus: what needs a program that is missing is not checked, which is an error in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.prometheus_package import find_program

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
#: The published one, which the package check-jsonschema has.
_COMPOSE_SCHEMA = "vendor.compose-spec"
#: A unit's exposure by systemd's own measure, in tenths: 100 is a service without any protection.
_MAX_EXPOSURE = 20


def commands(tools: Path) -> Iterator[Sequence[str]]:
    """Yield the commands; each must succeed and print nothing."""
    yield (str(tools / "hadolint"), "--failure-threshold", "style", *map(str, sorted(CONF.glob("*.Dockerfile"))))
    yield (str(tools / "kubernetes-validate"), "--strict", "--quiet", str(CONF / "kubernetes-worker.yaml"))
    yield (str(tools / "check-jsonschema"), "--quiet", "--builtin-schema", _COMPOSE_SCHEMA, str(CONF / "compose.yaml"))
    regions = ("--regions", "us-east-1", "eu-west-1")
    yield (str(tools / "cfn-lint"), "--template", str(CONF / "cloudformation.yaml"), *regions)


def prometheus_commands(promtool: str) -> Iterator[Sequence[str]]:
    """Yield promtool's commands; each must succeed."""
    yield (promtool, "check", "config", "--lint=all", "--lint-fatal", str(CONF / "prometheus.yaml"))
    yield (promtool, "check", "rules", "--lint=all", "--lint-fatal", str(CONF / "prometheus-alerts.yaml"))
    yield (promtool, "test", "rules", str(ROOT / "tests" / "alerts" / "prometheus-alerts-test.yaml"))


def check_dashboard(promtool: str) -> str:
    """Return what promtool finds wrong with the dashboard's expressions, as rules that record them."""
    panels = json.loads((CONF / "grafana-dashboard.json").read_text())["panels"]
    rules = [
        {"record": f"panel_{panel['id']}:{target['refId']}", "expr": fill_in(target["expr"])}
        for panel in panels
        for target in panel.get("targets", ())
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dashboard.yaml")
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        return _run((promtool, "check", "rules", str(path)), is_silent=False)


def fill_in(expression: str) -> str:
    """Return an expression of the dashboard with values in place of Grafana's variables."""
    values = {"$__rate_interval": "1m", "$namespace": ".*", "$queue": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def check_unit(analyze: str) -> str:
    """Return what systemd finds wrong with the unit: its program is not installed here, so another takes its place."""
    unit = CONF / "ecs-queue-worker@.service"
    text = unit.read_text().replace("/opt/ecs-queue/bin/ecs-queue", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        instance = Path(folder, "ecs-queue-worker@9464.service")
        instance.write_text(text)
        exposure = ("security", "--offline=true", f"--threshold={_MAX_EXPOSURE}")
        return _run((analyze, "verify", "--man=no", str(instance))) or _run(
            (analyze, *exposure, str(instance)), is_silent=False
        )


def _run(command: Sequence[str], is_silent: bool = True) -> str:
    """Return the output of a command that failed, or that printed something although it must not; else nothing."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    failed = done.returncode != 0 or (is_silent and done.stdout.strip())
    return f"{' '.join(command)}\n{done.stdout}" if failed else ""


def main(tools: Path) -> int:
    """Run all checks, and return the exit status."""
    found = [_run(command) for command in commands(tools)]
    if analyze := shutil.which("systemd-analyze"):
        found.append(check_unit(analyze))
    else:
        found.append(_report_missing("systemd-analyze", "install systemd"))
    if promtool := find_program("promtool"):
        found += [_run(command, is_silent=False) for command in prometheus_commands(promtool)]
        found.append(check_dashboard(promtool))
    else:
        found.append(_report_missing("promtool", "make prometheus"))
    problems = [each for each in found if each]
    print("\n".join(problems) or "the files of conf/ are sound")
    return 1 if problems else 0


def _report_missing(program: str, remedy: str) -> str:
    """Return a problem in CI; elsewhere only say that something was not checked."""
    if os.environ.get("CI"):
        return f"{program} is not installed: {remedy}"
    print(f"{program} is not installed, so its files were not checked: {remedy}")
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
