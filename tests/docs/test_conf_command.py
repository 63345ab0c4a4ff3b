"""`ecs-queue conf` has every file of conf/."""

from __future__ import annotations

import json

from click.testing import CliRunner

from ecs_queue.cli.conf import DESCRIPTIONS
from ecs_queue.cli.main import cli
from tests.docs import ROOT

CONF = ROOT / "conf"


def test_every_file_is_listed_with_what_it_is_and_printed_as_it_is() -> None:
    names = sorted(path.name for path in CONF.iterdir())
    listed = CliRunner().invoke(cli, ["conf", "list", "--json"]).stdout.splitlines()
    assert [json.loads(line)["name"] for line in listed] == list(DESCRIPTIONS) == names
    lines = CliRunner().invoke(cli, ["conf", "list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *names]
    for name in names:
        assert CliRunner().invoke(cli, ["conf", "show", name]).stdout_bytes == (CONF / name).read_bytes()


def test_only_these_files_are_printed() -> None:
    for name in ("../cli/conf.py", "nope"):
        done = CliRunner().invoke(cli, ["conf", "show", name])
        assert (done.exit_code, done.stdout) == (2, "")
        assert "there is no file" in done.stderr
