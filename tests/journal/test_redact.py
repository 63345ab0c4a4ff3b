"""Secrets are redacted; values that only resemble secrets are not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.journal import redact as redact_module
from ecs_queue.journal.redact import REDACTED, is_redacted, redact, redact_json, redacted_paths
from ecs_queue.telemetry import EVENTS

SECRET = "hunter2-4711"
_AWS = "arn:aws"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"
WORKLOAD = {"token": JWT, "ti": {"id": "0198", "dag_id": "etl"}, "log_path": "a/b.log", "type": "ExecuteTask"}


def environment(name: str, value: str) -> dict[str, Any]:
    return {"executor_config": {"environment": [{"name": name, "value": value}]}}


@pytest.mark.parametrize(
    "value",
    [
        *(
            environment(name, SECRET)
            for name in (
                "DB_PASSWORD",
                "db_passwd",
                "API_TOKEN",
                "AWS_SECRET_ACCESS_KEY",
                "apiKey",
                "SSH_KEY",
                "PGPASS",
                "AIRFLOW__ECS_QUEUE__SIGNING_KEYS",
                "ENCRYPTION_KEYS",
                "AIRFLOW_CONN_WAREHOUSE",
                "SLACK_WEBHOOK",
            )
        ),
        environment("DATABASE_URL", f"postgres://jobs:{SECRET}@db.internal/jobs"),
        environment("BROKER", f"rediss://:{SECRET}@cache:6379/0"),
        environment("ODD", f'{{"login": {{"password": "{SECRET}"}}}}'),
        environment("DSN", f"Server=db;User=sa;Password={SECRET};Encrypt=yes"),
        {"command": ["psql", "--password", SECRET, "-c", "select 1"]},
        {"command": ["curl", "-u", f"me:{SECRET}", "https://example.com"]},
        {"command": ["curl", f"--user=me:{SECRET}", "https://example.com"]},
        {"command": ["curl", f"-ume:{SECRET}", "https://example.com"]},
        {"command": ["sh", "-c", f"curl -u 'me:{SECRET}' https://example.com"]},
        {"command": ["sh", "-c", f"curl --proxy-user me:{SECRET} https://example.com"]},
        {"command": ["psql", f"--password={SECRET}"]},
        {"command": ["curl", "-H", f"Authorization: Bearer {SECRET}"]},
        {"command": ["curl", "-H", f"X-Api-Key: {SECRET}"]},
        {"command": ["curl", f"https://example.com/x?a=1&access_token={SECRET}&b=2"]},
        {"command": ["git", "clone", f"https://{SECRET}{SECRET}{SECRET}@example.com/x.git"]},
        {"command": ["sh", "-c", f"export GITHUB_TOKEN={SECRET}; make"]},
        {"command": ["sh", "-c", f"PASSWORD='{SECRET}' run"]},
        {"command": ["sh", "-c", f"mysql --password {SECRET} -u root"]},
        {"command": ["run", "--json-string", json.dumps({"token": SECRET, "ti": {"id": 1}})]},
        {"command": ["run", json.dumps({"inner": json.dumps({"password": SECRET})})]},
        {"tags": [{"key": "deploy-token", "value": SECRET}]},
        {"secrets": [SECRET]},
        {"reason": f"cannot connect to amqp://user:{SECRET}@host:5672//: refused"},
        {"reason": f"login failed, password: {SECRET}"},
        {"launch_spec": {"run_task": {"overrides": {"containerOverrides": [environment("TOKEN", SECRET)]}}}},
        {"id": f"redis://:{SECRET}@host"},
        {"envelope": {"labels": {"url": f"redis://:{SECRET}@host"}}},
        {"token": {"envelope": {"labels": {"team": SECRET}}}},
        {"envelope": {"command": ["--json", json.dumps({"labels": {"password": SECRET}})]}},
        {"reason": f"{_AWS}:iam::1:role/a, password:{SECRET}1"},
        {"reason": f"{_AWS}:iam::1:role/token={SECRET}"},
        {"reason": f"role {_AWS}:iam::1:role/a password: {SECRET}1"},
        {"sealed": f"password={SECRET}"},
        {"sealed": {"password": SECRET}},
        {"token": {"id": SECRET}},
        {"key": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"},
        {"command": ["sh", "-c", f"cat <<E\n-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\nE"]},
    ],
    ids=str,
)
def test_a_secret_is_redacted_and_its_path_is_returned(value: dict[str, Any]) -> None:
    redacted = redact(value, "secrets")

    assert SECRET not in json.dumps(redacted)
    assert REDACTED in json.dumps(redacted)
    assert redacted_paths(redacted)
    assert redact(redacted, "secrets") == redacted, "redacting again changes nothing"
    found = redact_json(msgspec.json.encode(value), "secrets").decode()
    assert SECRET not in found, "the search for markers finds it, too"


TOKENS = (
    *("sk-" + "0f" * 16, "sk-proj-" + "aB" * 24, "sk-" + "abcdefghij" * 3, "npm_" + "0123456789" * 4),
    *(JWT, "ghp_" + "a1" * 18, "github_pat_" + "a1" * 18, "glpat-" + "x" * 20, "xoxb-123456789012-abcdef"),
    *("AKIA" + "A1" * 8, "npm_" + "a1" * 18, "pypi-" + "a1" * 18, "hf_" + "a1" * 17, "ya29." + "a1" * 18),
    *("SG." + "a1" * 11 + "." + "a1" * 20, "sk_live_" + "a1" * 12, "dop_v1_" + "a1" * 32, "dckr_pat_" + "a1" * 12),
)


@pytest.mark.parametrize("secret", TOKENS)
def test_a_token_is_redacted_everywhere(secret: str) -> None:
    redacted = redact_json(msgspec.json.encode({"command": ["run", f"with {secret} in it"]}))

    assert json.loads(redacted) == {"command": ["run", f"with {REDACTED} in it"]}


@pytest.mark.parametrize(
    "value",
    [
        {"command": ["python", "etl.py", "--day", "2025-01-31"], "queue": "default", "priority": 3},
        environment("GREETING", "hello"),
        environment("URL", "http://example.com:8080/path?day=1&to=a@b"),
        environment("REMOTE", "ssh://git@github.com/x/y.git"),
        {"tags": [{"key": "team", "value": "data"}, {"key": "cost-center", "value": "17"}]},
        {"command": ["monkey", "--keyboard", "us"]},
        {"reason": "Task failed to start: the secret could not be fetched"},
        {"reason": "token used with other arguments"},
        {"command": ["--password"]},
        {"concurrency_key": "customer-7", "executor_config": {"ecs_queue": {"concurrency_key": "a b"}}},
        {"password": "", "token": None, "secret": True},
        {"sealed": "gAAAAABnmZ0" + "x" * 89, "signature": "main:" + "0f" * 32},
        {"sealed": "gAAAAABnmZ0" + "x" * 85 + "-KEY=="},
        {"sealed": "gAAAAABnmZ0" + "x" * 85 + "pWd1="},
        {"sealed": "gAAAAABnmZ0" + "x" * 85 + "jwtSK-" + "-sk-" + "a1" * 16},
        {"command": ["printf", "aGVsbG8gd29ybGQKEY=="]},
        {"id": "auth:1", "launch_spec": {"run_task": {"taskDefinition": "auth-service:12", "group": "job:token:1"}}},
        {"executor_config": {"task_definition": "my-token-job:3"}},
        {"tasks": [{"taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/auth:12"}]},
        {"containers": [{"image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/secret-job:1.2"}]},
        {"ti": {"dag_id": "auth", "run_id": "auth__2025-01-01T00:00:00+00:00"}},
        {"arn": "arn:aws:ecs:us-east-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"},
        *({member: {"labels": {"auth": "team-a", "key": "k1"}}} for member in ("data", "envelope", "record")),
        {"id": "report-sk-daily-aggregation-2025-01-31", "queue": "hf_finetune_llama_production"},
        {"command": ["sync", "--job", "pypi-mirror-sync-20250131", "npm_publish_internal_packages_every_day"]},
        {"labels": {"team": "xoxo-wedding-planner", "service": "xapp-production-main", "plan": "sk_test_environment"}},
        {"reason": f"not authorized to perform: ecs:RunTask on: {_AWS}:ecs:us-east-1:1:task-definition/auth:7"},
        {"reason": f"no {_AWS}:secretsmanager:us-east-1:1:secret:db-AbC:password::, try {_AWS}:sqs:x:1:token:2"},
    ],
    ids=str,
)
def test_a_value_that_is_no_secret_is_unchanged(value: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(value)

    assert redact(value, "secrets") == value
    assert redact_json(encoded, "secrets") is encoded
    assert redacted_paths(value) == []


@pytest.mark.parametrize(
    "config",
    [
        {"environment": [{"name": "GREETING", "value": SECRET}, {"name": "EMPTY", "value": ""}]},
        {"en_vironment": [{"name": "GREETING", "value": SECRET}, {"Value": SECRET, "name": "EMPTY"}]},
        {"ENVIRONMENT": [{"name": "GREETING", "value": SECRET}, {"name": "EMPTY", "value": 3}]},
        {
            "overrides": {
                "containerOverrides": [{"environment": [{"name": "GREETING"}, {"name": "EMPTY", "x": SECRET}]}]
            }
        },
        {"environment": [{"name": "GREETING", "value": [SECRET]}, {"name": "EMPTY", "value": {"a": SECRET}}, SECRET]},
    ],
)
def test_environment_values_are_hidden_whatever_they_are_and_their_names_stay(config: dict[str, Any]) -> None:
    redacted = redact_json(msgspec.json.encode({"executor_config": config})).decode()

    assert SECRET not in redacted
    assert "GREETING" in redacted
    assert "EMPTY" in redacted
    assert redact(json.loads(redacted)) == json.loads(redacted)


@pytest.mark.parametrize("environment", [SECRET, {"A": SECRET}, [[SECRET]]], ids=["text", "object", "nested"])
def test_an_environment_of_another_form_is_hidden_whole(environment: object) -> None:
    assert SECRET not in str(redact({"environment": environment}))


def test_commands_are_hidden_on_demand() -> None:
    value = {"command": ["run", "--day", "1"], "executor_config": {"environment": [{"name": "A", "value": "b"}]}}

    assert redact(value)["command"] == ["run", "--day", "1"]
    hidden = redact(value, "arguments")
    assert hidden["command"] == [REDACTED] * 3
    assert redacted_paths(hidden) == [*(f"command[{n}]" for n in range(3)), "executor_config.environment.A"]


def test_json_within_a_command_keeps_its_environment() -> None:
    """It is no environment of ECS: hiding it would make a replay impossible."""
    command = ["run", json.dumps({"environment": "production", "password": SECRET})]

    assert json.loads(redact({"command": command})["command"][1]) == {
        "environment": "production",
        "password": REDACTED,
    }


@pytest.mark.parametrize("depth", [300, 900])
def test_json_in_a_text_that_nests_too_deep_to_be_searched_is_hidden(depth: int) -> None:
    text = '{"a":' * depth + f'"{SECRET}"' + "}" * depth

    redacted = redact({"command": [text]})

    assert redacted["command"][0] in (text, REDACTED)


def test_only_the_token_of_an_airflow_workload_is_redacted() -> None:
    command = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", json.dumps(WORKLOAD)]

    redacted = redact({"command": command})

    assert json.loads(redacted["command"][-1]) == {**WORKLOAD, "token": REDACTED}
    assert redacted["command"][:-1] == command[:-1]


def test_a_url_keeps_all_but_its_password() -> None:
    assert redact("redis://user:p@ss:w0rd@cache:6379/0") == f"redis://user:{REDACTED}@cache:6379/0"


def test_paths_use_indexes_and_names() -> None:
    redacted = redact({"command": ["x", "--token", SECRET], **environment("TOKEN", SECRET), "depth": [[{"pwd": "x"}]]})

    assert redacted_paths(redacted) == ["command[2]", "executor_config.environment.TOKEN", "depth[0][0].pwd"]


def test_a_text_with_a_redacted_part_counts_as_redacted() -> None:
    assert is_redacted(f"a {REDACTED} b")
    assert not is_redacted("a b")
    assert not is_redacted(3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_json_can_be_redacted_again_and_again(value: Any) -> None:
    once = redact(value)

    assert redact(once) == once
    msgspec.json.decode(redact_json(msgspec.json.encode(value)))


pieces = st.sampled_from(
    [
        *(
            "pass",
            "PWD",
            "Secret",
            "token",
            "credential",
            "signature",
            "auth",
            "my_key",
            "apikey",
            "a",
            "me",
            "hunter2",
        ),
        *("//", "://", ":", "@", "=", " ", "--", "-", ".", "_", "{", "Bearer ", "basic ", "abcdefgh12", JWT),
        *("ghp_" + "a" * 24, "sk-" + "a" * 24, "AIza" + "b" * 32, "xoxb-0123456789ab", "glpat-" + "c" * 20, *TOKENS),
        *("-u", "--user", "me:", "AIRFLOW_CONN_X", "webhook", "cookie"),
        *("pa\u017fs", "\u212aey"),  # letters that count as s and as k where case is ignored
    ]
)


@given(st.lists(pieces, max_size=8).map("".join))
def test_a_text_without_markers_has_no_secret(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact_module, "_MARKERS_BY_PART", {"": ("",)})  # looks closely at every text
        closely = redact(text)

    assert redact(text) == closely


@pytest.mark.parametrize(
    "part",
    [
        "a.a-",
        "://",
        "--a ",
        "a= ",
        "password ",
        "eyJ",
        "x",
        "{",
        "'",
        "pass='",
        "://a:",
        "token:",
        "-" * 9,
        ".-u",
        "-u a",
    ],
)
@pytest.mark.timeout(60)
def test_no_text_takes_long(part: str) -> None:
    """The longest possible payload; a search that is not linear would take minutes."""
    redact({"command": [part * (128 * 1024 // len(part))]})


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_no_field_of_an_event_has_the_name_of_a_secret(name: str) -> None:
    data = dict.fromkeys((*EVENTS[name].fields, *EVENTS[name].journal_only), "x1")

    assert redact({"name": name, "data": data}) == {"name": name, "data": data}, "an import would lose it"
