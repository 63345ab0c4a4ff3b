"""Layers, defaults, rules between keys, and the error that names all problems."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.config import Config, load_config
from ecs_queue.config.commands import run_command
from ecs_queue.config.main_keys import MAIN_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS
from ecs_queue.errors import ConfigError


def write(folder: Path, text: str) -> str:
    file = folder / "ecs_queue.cfg"
    file.write_text(text, encoding="utf-8")
    return str(file)


def env(section: str = "ECS_QUEUE", **keys: str) -> dict[str, str]:
    return {f"AIRFLOW__{section}__{key.upper()}": value for key, value in keys.items()}


def load(section: str = "ECS_QUEUE", **keys: str) -> Config:
    return load_config(environ=env(section, **keys))


def problem(section: str = "ECS_QUEUE", **keys: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(section, **keys)
    return str(caught.value)


def origin(config: Config, key: str, section: str = "ecs_queue") -> str:
    (found,) = [item.origin for item in config.effective_values if (item.section, item.key) == (section, key)]
    return found


def test_the_defaults_are_the_documented_ones() -> None:
    config = load_config(environ={})
    assert (config.broker_url, config.ledger_url) == ("redis://127.0.0.1:6379/0",) * 2
    assert (config.namespace, config.concurrency, config.durability) == ("ecs-queue", 32, "server")
    assert (config.run_task_rate, config.run_task_burst) == (20, 100)
    assert (config.describe_tasks_rate, config.describe_tasks_burst) == (20, 100)
    assert (config.lease_seconds, config.settle_seconds) == (30, 600)
    assert (config.call_budget_seconds, config.connect_timeout_seconds, config.read_timeout_seconds) == (
        5,
        5,
        15,
    )
    assert (config.launch_deadline, config.retention_seconds, config.accept_seconds) == (86400, 86400, 86400)
    assert (config.max_in_flight, config.visibility_timeout, config.sweep_after_seconds) == (0, 60, 5)
    assert (config.startup_allowance, config.retry_base_seconds, config.retry_cap_seconds) == (0, 2, 60)
    assert config.socket_timeout_seconds == 5


def test_every_field_is_a_key_and_every_key_a_field() -> None:
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields - {"base_profile", "named_profiles", "effective_values", "secret_files"} == set(MAIN_KEYS)
    profile = load_config(environ={}).profile("default")
    assert {field.name for field in dataclasses.fields(profile)} - {"queue", "cluster_strategy"} == set(PROFILE_KEYS)


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    file = write(tmp_path, "[ecs_queue]\nnamespace = of-file\nconcurrency = 2\nmax_in_flight = 2\n")
    config = load_config(file, env(namespace="of-env", concurrency="3"), {"namespace": "of-option"})
    assert (config.namespace, config.concurrency, config.max_in_flight) == ("of-option", 3, 2)
    assert origin(config, "namespace") == "command line"
    assert origin(config, "concurrency") == "AIRFLOW__ECS_QUEUE__CONCURRENCY"
    assert origin(config, "max_in_flight") == f"{file} [ecs_queue]"
    assert origin(config, "durability") == "default"


def test_the_file_may_be_named_by_the_environment_and_the_argument_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "[ecs_queue]\nnamespace = here\n")
    assert load_config(environ={"ECS_QUEUE_CONFIG": file}).namespace == "here"
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(str(tmp_path / "nowhere.cfg"), {"ECS_QUEUE_CONFIG": file})


def test_sections_and_variables_of_other_programs_are_ignored(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "[DEFAULT]\nx = 1\n[core]\nexecutor = LocalExecutor\nfernet = %(x)s %\n[ecs_queue]\nnamespace = a\n",
    )
    others = {"AIRFLOW__CORE__EXECUTOR": "x", "AIRFLOW__AWS_BATCH_EXECUTOR__REGION": "y", "AIRFLOW_HOME": "z"}
    assert load_config(file, others).namespace == "a"


def test_a_percent_sign_is_escaped_by_another_and_literal_before_anything_else(tmp_path: Path) -> None:
    file = write(tmp_path, "[ecs_queue]\nbroker_url = redis://:a%40b%%c@host:6379/0\n")
    assert load_config(file, env(ledger_url="redis://:a%%@h")).broker_url == "redis://:a%40b%c@host:6379/0"
    assert load(ledger_url="redis://:a%%@h").ledger_url == "redis://:a%%@h"


def test_a_value_may_name_another_one_of_its_section(tmp_path: Path) -> None:
    file = write(tmp_path, "[ecs_queue]\nnamespace = a\nbroker_url = redis://%(namespace)s:6379/0\n")
    assert load_config(file, {}).broker_url == "redis://a:6379/0"


@pytest.mark.parametrize("text", ["%(nothing)s", "%(broker_url)s"])
def test_a_reference_that_leads_nowhere_is_an_error_that_names_the_key(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, f"[ecs_queue]\nbroker_url = redis://:hunter2@{text}\n")
    with pytest.raises(ConfigError, match=r"\[ecs_queue\] broker_url: expected .*from .*\[ecs_queue\]") as caught:
        load_config(file, {})
    assert "hunter2" not in str(caught.value)


def test_variables_of_the_environment_are_expanded_in_files_and_variables(tmp_path: Path) -> None:
    file = write(
        tmp_path, "[ecs_queue]\nbroker_url = redis://${HOST}:6379/0\n[aws_ecs_executor]\ncluster = $NO-${NO}\n"
    )
    environ = {"HOST": "a.$ZONE", "ZONE": "b", **env(namespace="$ZONE-c")}
    config = load_config(file, environ)
    assert (config.broker_url, config.namespace) == ("redis://a.b:6379/0", "b-c")
    assert config.base_profile.cluster == "$NO-${NO}"


def test_a_variable_that_refers_to_itself_is_an_error_and_no_endless_loop() -> None:
    environ = {"SECRET": "hunter2$SECRET", **env(broker_url="$SECRET")}
    with pytest.raises(ConfigError, match="broker_url: expected environment variables that do not refer to") as caught:
        load_config(environ=environ)
    assert "hunter2" not in str(caught.value)


class TestCommands:
    URL = "redis://:hunter2@h:6379/0"

    def test_a_secret_may_be_what_a_command_prints(self, tmp_path: Path) -> None:
        config = load(broker_url_cmd=f"printf ' {self.URL} \n'")
        assert config.broker_url == self.URL
        assert origin(config, "broker_url") == "AIRFLOW__ECS_QUEUE__BROKER_URL_CMD"
        file = write(tmp_path, f"[ecs_queue]\nbroker_url_cmd = echo {self.URL}\n")
        config = load_config(file, {})
        assert config.broker_url == self.URL
        assert origin(config, "broker_url") == f"{file} [ecs_queue] broker_url_cmd"

    def test_a_command_that_another_value_hides_is_not_run(self, tmp_path: Path) -> None:
        made = tmp_path / "made"
        config = load(broker_url=self.URL, broker_url_cmd=f"touch {made}")
        assert config.broker_url == self.URL
        assert not made.exists()

    @pytest.mark.parametrize(
        ("command", "found"),
        [
            ("sh -c 'echo hunter2; exit 3'", "failed with exit code 3"),
            ("true hunter2", "printed nothing"),
            ("/no/such/hunter2", "cannot be run: No such file"),
            ("echo 'hunter2", "cannot be run: text that is no command"),
            ("", "cannot be run: text that is no command"),
        ],
    )
    def test_one_that_fails_is_an_error_that_names_the_key_and_shows_nothing(self, command: str, found: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(signing_keys_cmd=command)
        assert str(caught.value).startswith("[ecs_queue] signing_keys: expected a command that prints the value, found")
        assert found in str(caught.value)
        assert str(caught.value).endswith("(from AIRFLOW__ECS_QUEUE__SIGNING_KEYS_CMD)")
        assert "hunter2" not in str(caught.value)

    def test_a_secret_may_stand_in_a_file(self, tmp_path: Path) -> None:
        value = tmp_path / "url"
        value.write_text(f"\n {self.URL} \n")
        config = load(broker_url_file=str(value))
        assert config.broker_url == self.URL
        assert origin(config, "broker_url") == "AIRFLOW__ECS_QUEUE__BROKER_URL_FILE"
        file = write(tmp_path, "[ecs_queue]\nbroker_url_file = ${FOLDER}/url\n")
        assert load_config(file, {"FOLDER": str(tmp_path)}).broker_url == self.URL
        assert load_config(overrides={"broker_url_file": str(value)}, environ={}).broker_url == self.URL
        assert load(broker_url_file="/no/such/file", broker_url=self.URL).broker_url == self.URL

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (None, "No such file"),
            (b" \n", "which is empty"),
            (b"hunter2 \xff", "without UTF-8"),
            (b"hunter2" * 10_000, "65536 bytes"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_an_error_that_shows_nothing_of_it(
        self, tmp_path: Path, content: bytes | None, found: str
    ) -> None:
        file = tmp_path / "key"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(encryption_keys_file=str(file))
        assert str(caught.value).startswith("[ecs_queue] encryption_keys: expected a file with the value, found")
        assert found in str(caught.value)
        assert str(file) in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_the_files_that_hold_a_password_or_a_key_are_known(self, tmp_path: Path) -> None:
        value = tmp_path / "url"
        value.write_text("redis://user:hunter2@h/0")
        plain = write(tmp_path, "[ecs_queue]\nbroker_url = redis://h/0\n")
        assert load_config(plain, {}).secret_files == ()
        assert load(broker_url_file=str(value)).secret_files == (str(value),)
        file = write(tmp_path, f"[ecs_queue]\nbroker_url = redis://:hunter2@h/0\nledger_url_file = {value}\n")
        assert set(load_config(file, {}).secret_files) == {file, str(value)}
        elsewhere = write(tmp_path, f"[ecs_queue]\nbroker_url_file = {value}\nledger_url_cmd = cat {value}\n")
        assert load_config(elsewhere, {}).secret_files == (str(value),)

    def test_one_that_does_not_end_is_ended_with_its_children(self) -> None:
        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"ran longer than 0\.2 s"):
            run_command("sh -c 'sleep 60 & sleep 60'", timeout=0.2)
        assert time.monotonic() - started < 30

    @pytest.mark.parametrize("suffix", ["cmd", "secret", "file"])
    def test_only_secrets_may_come_from_a_command_or_a_backend(self, suffix: str) -> None:
        message = (
            "the value itself, found 'concurrency_.*': only broker_url, .* may be in a command, a file or a secret"
        )
        with pytest.raises(ConfigError, match=message):
            load(**{f"concurrency_{suffix}": "echo 5"})

    def test_a_secret_of_airflows_backend_says_what_to_do(self) -> None:
        with pytest.raises(
            ConfigError, match=r"broker_url: .*start this program as `airflow ecs-queue .*BROKER_URL_CMD"
        ):
            load(broker_url_secret="path")


def test_an_empty_variable_keeps_the_value_of_the_layer_below(tmp_path: Path) -> None:
    file = write(tmp_path, "[ecs_queue]\nbroker_url = redis://file:6379/0\nledger_url = redis://other:6379/1\n")
    config = load_config(file, env(broker_url="", ledger_url=""))
    assert config.broker_url == config.ledger_url == "redis://file:6379/0"


def test_the_ledger_is_the_broker_unless_it_is_set() -> None:
    assert load(broker_url="memory://").ledger_url == "memory://"
    config = load(broker_url="redis://a", ledger_url="redis://b:6380/1")
    assert (config.broker_url, config.ledger_url) == ("redis://a", "redis://b:6380/1")


@pytest.mark.parametrize("url", ["amqp://u:p@h/v", "sqs://"])
def test_a_broker_that_holds_no_records_needs_a_ledger(url: str) -> None:
    assert load(broker_url=url, ledger_url="redis://h/1").broker_url == url
    for ledger in ("", "memory://"):
        text = problem(broker_url=url, ledger_url=ledger)
        assert text.startswith("[ecs_queue] ledger_url: expected the URL of a Redis or Valkey")


def test_with_sqs_a_message_stays_hidden_for_as_long_as_a_launch_may_take() -> None:
    text = problem(broker_url="sqs://", ledger_url="redis://h/1", visibility_timeout="20")
    assert "visibility_timeout: expected from lease_seconds (30) to 43200 with SQS, found 20" in text
    assert load(broker_url="sqs://", ledger_url="redis://h/1", visibility_timeout="30").visibility_timeout == 30


def test_a_log_in_with_iam_that_the_ledger_has_from_the_broker_is_reported_once() -> None:
    text = problem(broker_url="redis://h", broker_iam="elasticache:ann@c")
    assert "[ecs_queue] broker_iam: a log-in with IAM needs TLS" in text
    assert "ledger_iam" not in text
    text = problem(broker_url="rediss://h", ledger_url="redis://h", ledger_iam="elasticache:ann@c")
    assert "[ecs_queue] ledger_iam: a log-in with IAM needs TLS" in text
    assert "(from )" not in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("concurrency", "many", "expected a whole number >= 1, found 'many'"),
        ("concurrency", "0", "expected a whole number >= 1, found '0'"),
        ("max_in_flight", "-1", "expected a whole number >= 0, found '-1'"),
        ("run_task_rate", "-1", "expected a number of calls a second >= 0, found '-1'"),
        ("run_task_rate", "nan", "expected a number of calls a second >= 0, found 'nan'"),
        ("lease_seconds", "inf", "expected a duration above 0, such as 90, 90s, 30m, 2h or 7d, found 'inf'"),
        ("launch_deadline", "0", "expected a duration above 0, such as 90, 90s, 30m, 2h or 7d, found '0'"),
        ("launch_deadline", "1 hour", "expected a duration above 0, such as 90, 90s, 30m, 2h or 7d, found '1 hour'"),
        ("retry_base_seconds", "0.01", "expected a duration >= 0.05 s, such as 90, 90s, 30m, 2h or 7d, found '0.01'"),
        ("durability", "none", "expected one of server, aof, replica, found 'none'"),
        ("namespace", "a b", "expected 1 to 32 of A-Z a-z 0-9 _ -, found 'a b'"),
        ("namespace", "x" * 33, "expected 1 to 32"),
        ("broker_url", "localhost:6379", "expected a URL such as redis://"),
        ("broker_url", "redis://", "expected a URL such as redis://"),
        ("broker_url", "redis://a;redis://b", "expected a URL such as redis://"),
        ("broker_url", "redis://h:port", "expected a URL such as redis://"),
        ("broker_url", "redis://h/zero", "the number of a database"),
        ("ledger_url", "sqs://", "sqs:// carries messages and holds no records"),
        ("ledger_url", "http://h", "found 'http://h': the scheme is none of redis, rediss"),
    ],
)
def test_a_bad_value_is_reported_with_expected_found_and_origin(key: str, value: str, message: str) -> None:
    text = problem(**{key: value})
    assert text.startswith(f"[ecs_queue] {key}: expected")
    assert message in text
    assert text.endswith(f"(from AIRFLOW__ECS_QUEUE__{key.upper()})")


@pytest.mark.parametrize("url", ["redis://:hunter2/x@h:6379/0", "amqp://u:hunter2@h", "redis://u:hunter2@h:x/0"])
def test_the_password_of_a_bad_url_is_not_in_the_message(url: str) -> None:
    assert "hunter2" not in problem(broker_url=url)


def test_neither_repr_nor_effective_values_show_a_password() -> None:
    config = load(broker_url="redis://:hunter2@h:6379/0?password=hunter3")
    shown = f"{config!r} {config} {config.effective_values}"
    assert "hunter" not in shown
    assert "redis://:***@h:6379/0" in shown


def test_all_problems_come_in_one_error() -> None:
    lines = problem(concurrency="x", durability="y", nonsense="z").splitlines()
    assert len(lines) == 3


def test_an_unknown_key_is_reported_with_the_nearest_known_one() -> None:
    assert "[ecs_queue] broker_ulr: expected a known key, found 'broker_ulr'; did you mean 'broker_url'?" in problem(
        broker_ulr="redis://:hunter2@h"
    )
    assert "hunter2" not in problem(broker_ulr="redis://:hunter2@h")
    assert "expected one of broker_url, " in problem(zzz="1")


@pytest.mark.parametrize(
    "section",
    ["ecs-queue", "aws_ecs_executor_gpu", "aws_ecs_executor.", "aws_ecs_executor.a b", "AWS-ECS-EXECUTOR"],
)
def test_a_section_that_resembles_ours_is_refused(tmp_path: Path, section: str) -> None:
    file = write(tmp_path, f"[{section}]\ncluster = a\n")
    with pytest.raises(ConfigError, match="expected") as caught:
        load_config(file, {})
    assert f"{file} [{section}]" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("namespace = a\n", "a line before the first"),
        ("[ecs_queue]\nnamespace = a\nnamespace = b\n", "'namespace' twice in"),
        ("[ecs_queue]\n[ecs_queue]\n", "twice"),
        ("[ecs_queue]\nhunter2\n", "neither a section nor key = value"),
    ],
)
def test_a_file_that_is_no_ini_file_is_refused_without_its_text(tmp_path: Path, content: str, message: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file, {})
    assert file in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_unreadable_file_is_an_error_that_names_its_origin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(str(tmp_path / "none.cfg"), {})
    with pytest.raises(ConfigError, match="from ECS_QUEUE_CONFIG"):
        load_config(environ={"ECS_QUEUE_CONFIG": str(tmp_path)})
    (tmp_path / "latin.cfg").write_bytes(b"[ecs_queue]\nnamespace = \xff\n")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load_config(str(tmp_path / "latin.cfg"), {})


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "bom.cfg").write_bytes(b"\xef\xbb\xbf[ecs_queue]\nnamespace = a\n")
    assert load_config(str(tmp_path / "bom.cfg"), {}).namespace == "a"


@settings(deadline=None)
@given(st.floats(0.05, 600))
def test_a_lease_alone_always_fits_the_parts_of_a_call(lease: float) -> None:
    config = load(lease_seconds=repr(lease))
    parts = config.call_budget_seconds + config.connect_timeout_seconds + config.read_timeout_seconds
    assert 0 < parts < config.lease_seconds
    assert config.call_budget_seconds <= 5


def test_parts_of_a_call_that_are_set_must_fit_the_lease() -> None:
    text = problem(read_timeout_seconds="20")
    assert "expected less than lease_seconds (30), found 5 + 5 + 20 = 30" in text
    assert "AIRFLOW__ECS_QUEUE__READ_TIMEOUT_SECONDS" in text
    assert load(read_timeout_seconds="19.5").read_timeout_seconds == 19.5


def test_derived_values_have_a_derived_origin() -> None:
    config = load(lease_seconds="2")
    assert config.read_timeout_seconds == 1
    assert origin(config, "read_timeout_seconds") == origin(config, "ledger_url") == "default (derived)"


def test_the_proof_that_nothing_was_launched_must_fit_what_aws_remembers() -> None:
    assert "lease_seconds + settle_seconds: expected at most 1200, found 1230" in problem(settle_seconds="1200")


def test_a_retry_delay_default_follows_the_one_that_is_set() -> None:
    assert load(retry_base_seconds="90").retry_cap_seconds == 90
    assert load(retry_cap_seconds="0.5").retry_base_seconds == 0.5
    assert "expected at least retry_base_seconds (9), found 3" in problem(retry_base_seconds="9", retry_cap_seconds="3")


def test_command_line_options_are_checked_like_other_layers() -> None:
    with pytest.raises(ConfigError, match=r"concurrency: .*found 'x' \(from command line\)"):
        load_config(environ={}, overrides={"concurrency": "x"})


def test_without_an_environment_the_processes_own_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECS_QUEUE_CONFIG", raising=False)
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__NAMESPACE", "of-process")
    assert load_config().namespace == "of-process"


URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/events"


def test_a_profile_may_have_its_own_event_queue() -> None:
    other = "http://127.0.0.1:5000/123456789012/others"
    config = load_config(environ={**env(event_queue_url=URL), "AIRFLOW__AWS_ECS_EXECUTOR_GPU__EVENT_QUEUE_URL": other})
    assert config.event_queue_url_for("default") == config.event_queue_url_for("any") == URL
    assert config.event_queue_url_for("gpu") == other
    assert config.uses_events()
    assert URL in repr(config)


def test_without_an_event_queue_there_are_no_events() -> None:
    config = load_config(environ={})
    assert (config.event_queue_url_for("default"), config.uses_events()) == ("", False)


@pytest.mark.parametrize(
    "url",
    [
        "events",
        "arn:aws:sqs:eu-west-1:123456789012:events",
        "https://sqs.eu-west-1.amazonaws.com/",
        "https://u:p@h/1/q",
    ],
)
def test_an_event_queue_is_given_by_its_url(url: str) -> None:
    with pytest.raises(ConfigError, match="event_queue_url: expected a URL") as raised:
        load_config(environ=env(event_queue_url=url))
    assert ":p@" not in str(raised.value)


def test_a_file_without_an_end_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"configuration file /dev/zero: .*it has more than 1048576 bytes"):
        load_config("/dev/zero")
