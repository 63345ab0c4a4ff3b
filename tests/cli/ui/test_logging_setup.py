"""One line an event, as text or JSON; other libraries only from WARNING."""

from __future__ import annotations

import json
import logging

import pytest
from opentelemetry.util.re import parse_env_headers

from ecs_queue.cli.ui.logging_setup import configure_logging
from ecs_queue.telemetry import Telemetry


def test_an_event_is_one_line_of_text_with_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.INFO, "text")
    Telemetry().emit("launch.no_effect", id="a1", launch=1, reason="throttled\x1b[31m\nfor now")
    line = capsys.readouterr().err
    assert line.endswith("INFO a1 not launched, tried again later: throttled [31m for now\n")
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_an_event_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.INFO, "json")
    Telemetry().emit("launch.started", id="a1", launch=2, arn="arn:aws:ecs:task", queue="etl", queued_at=1.5)
    shown = json.loads(capsys.readouterr().err)
    assert shown.pop("at").endswith("Z")
    assert shown == {
        "level": "info",
        "event": "launch.started",
        "message": "a1 launched as arn:aws:ecs:task (launch 2)",
        "id": "a1",
        "launch": 2,
        "arn": "arn:aws:ecs:task",
        "queue": "etl",
        "queued_at": 1.5,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_is_kept(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.INFO, log_format)
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        logging.getLogger("kombu").exception("it broke")
    said = capsys.readouterr().err
    assert "ZeroDivisionError: why" in said
    if log_format == "json":
        assert json.loads(said)["event"] == "kombu"


def test_other_libraries_are_heard_from_warning_even_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.DEBUG, "text")
    for name in ("botocore", "kombu.connection", "urllib3"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("botocore").warning("trouble")
    logging.getLogger("ecs_queue").debug("detail")
    said = capsys.readouterr().err
    assert "chatter" not in said
    assert "WARNING trouble" in said
    assert "DEBUG detail" in said


def test_a_header_for_the_collector_is_not_shown_even_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.DEBUG, "text")
    assert parse_env_headers("Authorization: Bearer hunter2", liberal=True) == {}
    logging.getLogger("opentelemetry.exporter").debug("it exports")
    shown = capsys.readouterr().err
    assert ("it exports" in shown, "hunter2" in shown) == (True, False)
