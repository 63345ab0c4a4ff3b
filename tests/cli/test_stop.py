"""What `stop` says of each id."""

from __future__ import annotations

from collections.abc import Mapping

from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until


def test_stop_reports_what_happened_to_each_id(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    done = invoke("stop", "waits", "unheard-of", env=no_worker_environ)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "waits: revoked before its launch",
        "unheard-of: not known yet; it is revoked if it arrives within 1 d",
    ]
    again = json_lines(invoke("stop", "waits", "--json", env=no_worker_environ).stdout)
    assert again == [{"id": "waits", "state": "REVOKED", "result": "ended"}]
    assert "had ended already: REVOKED" in invoke("stop", "waits", env=no_worker_environ).stdout


def test_an_invalid_id_stops_nothing(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    for wrong in ("two words", "x" * 49, "arn:aws:ecs:eu-west-1:123456789012:task/prod/nope"):
        done = invoke("stop", "waits", wrong, env=no_worker_environ)
        assert done.exit_code == 2
        assert "nothing was stopped" in done.stderr
    assert "QUEUED" in invoke("status", "waits", env=no_worker_environ).stdout


def test_a_running_task_is_stopped_and_its_real_exit_code_reported(deployment: Deployment) -> None:
    waiting = deployment.start("submit", "--wait", "--json", "--id", "sleeper", "--", "sleep", "60")
    with deployment.make_client() as client:

        def arn() -> str:
            record = client.ledger.get(["sleeper"])[0]
            return record.arn if record is not None and record.last_status == "RUNNING" else ""

        wait_until(lambda: bool(arn()), "the task runs", 20)
        lines = json_lines(deployment.run("stop", arn(), "--json").stdout)
    assert [(line["state"], line["result"]) for line in lines] == [("LAUNCHED", "stopping")]
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 143
    assert json_lines(out.decode())[0]["state"] == "REVOKED"
