"""Every key of the configuration: its default, how it is read, what it means. All else follows this list.

A default is text, as it would stand in a file; None: there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecs_queue.config import parsers
from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS, CONFIG_GROUP_NAME
from ecs_queue.runtask.overrides import ALLOW_SAFE, SAFE_OVERRIDES

MAIN_SECTION = "ecs_queue"
PROFILE_SECTION = CONFIG_GROUP_NAME


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key. `is_optional`: an empty value means "none"; otherwise it means the default."""

    name: str
    default: str | None
    parse: parsers.Parser
    doc: str
    is_optional: bool = False


_MAIN_KEYS = (
    ConfigKey(
        "broker_url",
        "redis://127.0.0.1:6379/0",
        parsers.store_url,
        "Where requests and results are published: redis://, rediss:// (TLS) or memory:// (one process, for tests).",
    ),
    ConfigKey(
        "ledger_url",
        None,
        parsers.store_url,
        "Where the records are kept. Empty: the same server as broker_url.",
        is_optional=True,
    ),
    ConfigKey(
        "namespace",
        "ecs-queue",
        parsers.matching(r"[A-Za-z0-9_-]{1,32}", "1 to 32 of A-Z a-z 0-9 _ -"),
        "Keeps several installations on one server and one cluster apart; it begins every key and every startedBy.",
    ),
    ConfigKey("concurrency", "32", parsers.integer(1), "How many RunTask calls one worker makes at the same time."),
    ConfigKey(
        "run_task_rate",
        "20",
        parsers.number(0, "calls a second"),
        "RunTask and StopTask calls a second, of all workers together. 0: no limit. 20 is AWS's quota on Fargate.",
    ),
    ConfigKey(
        "run_task_burst",
        "100",
        parsers.integer(1),
        "RunTask calls that may be made at once after a pause. 100 is AWS's quota.",
    ),
    ConfigKey(
        "describe_tasks_rate",
        "20",
        parsers.number(0, "calls a second"),
        "DescribeTasks and ListTasks calls a second, of all workers together. 0: no limit. 20 is AWS's quota.",
    ),
    ConfigKey(
        "describe_tasks_burst",
        "100",
        parsers.integer(1),
        "DescribeTasks calls that may be made at once after a pause. 100 is AWS's quota.",
    ),
    ConfigKey(
        "lease_seconds",
        "30",
        parsers.positive_seconds,
        "How long a claim on a record is good. A dead worker's records are taken over after this "
        "time. It must be "
        "longer than call_budget_seconds + connect_timeout_seconds + read_timeout_seconds, which "
        "shrink with it "
        "when they are not set.",
    ),
    ConfigKey(
        "settle_seconds",
        "600",
        parsers.number(0),
        "How long after the last possible RunTask call an empty answer of ListTasks becomes proof: 5 "
        "minutes for "
        "which AWS accepts a signed call, and 5 for clock skew and visibility.",
    ),
    ConfigKey(
        "call_budget_seconds",
        "5",
        parsers.positive_seconds,
        "After this time since the claim RunTask is not sent any more. Default: 5, or 15 % of a shorter lease.",
    ),
    ConfigKey(
        "connect_timeout_seconds",
        "5",
        parsers.positive_seconds,
        "Time to connect to AWS. Default: 5, or 15 % of a shorter lease.",
    ),
    ConfigKey(
        "read_timeout_seconds",
        "15",
        parsers.positive_seconds,
        "Time to wait for AWS's answer. Default: 15, or 50 % of a shorter lease.",
    ),
    ConfigKey(
        "durability",
        "server",
        parsers.one_of("server", "aof", "replica"),
        "What makes a claim durable before ECS is called. server: the server does it itself (appendfsync "
        "always, MemoryDB). aof: wait for the append-only file (WAITAOF). replica: wait for a replica"
        " (WAIT).",
    ),
    ConfigKey(
        "launch_deadline",
        "86400",
        parsers.positive_seconds,
        "Seconds for which a request without an expiry of its own waits for capacity before it is EXPIRED.",
    ),
    ConfigKey(
        "retention_seconds", "86400", parsers.positive_seconds, "How long a result is kept after it was delivered."
    ),
    ConfigKey(
        "max_in_flight",
        "0",
        parsers.integer(0),
        "Tasks in flight at the same time in this namespace. 0: no limit.",
    ),
    ConfigKey(
        "event_queue_url",
        None,
        parsers.queue_url,
        "The URL of the SQS queue into which EventBridge puts this namespace's ECS events (docs/events.md). "
        "Empty: tasks are followed by polls alone.",
        is_optional=True,
    ),
    ConfigKey(
        "visibility_timeout",
        "60",
        parsers.positive_seconds,
        "Seconds after which a message that a worker received and did not acknowledge is given to another.",
    ),
    ConfigKey(
        "max_deliveries",
        "5",
        parsers.integer(1),
        "How many workers in a row may die with a request in hand before it is given up: a dead letter, and FAILED.",
    ),
    ConfigKey(
        "sweep_after_seconds",
        "5",
        parsers.positive_seconds,
        "A queued record that no message announced for so long is looked at.",
    ),
    ConfigKey(
        "startup_allowance",
        "0",
        parsers.number(0),
        "Seconds that a container needs to start: a request that expires sooner is not launched any more.",
    ),
    ConfigKey(
        "accept_seconds",
        "86400",
        parsers.positive_seconds,
        "How long after its submission a message may still make a new record. Later ones go to the dead letters.",
    ),
    ConfigKey(
        "retry_base_seconds",
        "2",
        parsers.number(0.05),
        "The shortest delay before a retry; it doubles with every one. Below 2 only for tests: a "
        "ledger that loses "
        "its last second at a fail-over must not lose two launch numbers.",
    ),
    ConfigKey("retry_cap_seconds", "60", parsers.number(0.05), "The longest delay before a retry."),
    ConfigKey(
        "socket_timeout_seconds",
        "5",
        parsers.positive_seconds,
        "Time to wait for the broker's and the ledger's answers.",
    ),
    ConfigKey(
        "signing_keys",
        None,
        parsers.signing_keys,
        "Keys that sign messages and records, separated by commas, each ID:SECRET; the first signs, all are good. "
        "When one is set, what is not signed is not launched. SECRET is text of 32 characters or more (openssl rand "
        "-hex 32).",
        is_optional=True,
    ),
    ConfigKey(
        "encryption_keys",
        None,
        parsers.encryption_keys,
        "Fernet keys, separated by commas, that encrypt commands and executor_config in messages and records; the "
        "first encrypts, all decrypt. Needs ecs-queue[encryption].",
        is_optional=True,
    ),
    ConfigKey(
        "allowed_overrides",
        ALLOW_SAFE,
        parsers.override_names,
        "What a request's executor_config may override; workers refuse the rest. Names, separated by commas: keys of a "
        "container override, overrides.KEY for the whole task's, arguments of run_task. * is everything, none is "
        f"nothing, safe is {', '.join(SAFE_OVERRIDES)}.",
    ),
    ConfigKey(
        "journal",
        "True",
        parsers.boolean,
        "Whether workers and clients keep a journal on the ledger's server: every envelope, decision and answer of "
        "ECS, secrets redacted. It is what timelines and replays are made of.",
    ),
    ConfigKey(
        "journal_megabytes",
        "256",
        parsers.integer(1),
        "About what the journal may take of the server's memory; the oldest events go first. A task takes 1 to 2 kB.",
    ),
    ConfigKey(
        "journal_retention_seconds",
        "604800",
        parsers.positive_seconds,
        "How long an event is kept at most. Applied whenever something is written.",
    ),
)

_PROFILE_KEYS = (
    ConfigKey(
        "conn_id",
        CONFIG_DEFAULTS["conn_id"],
        parsers.text,
        "The Airflow connection with the credentials, where Airflow and its amazon provider are installed; "
        "elsewhere, or when empty, boto3's own credential chain serves.",
        is_optional=True,
    ),
    ConfigKey("region_name", None, parsers.text, "The AWS region. Empty: boto3's own (AWS_REGION).", is_optional=True),
    ConfigKey("cluster", None, parsers.text, "Name or ARN of the ECS cluster. Required to launch.", is_optional=True),
    ConfigKey(
        "task_definition",
        None,
        parsers.text,
        "Family, family:revision or ARN of the task definition. Required to launch.",
        is_optional=True,
    ),
    ConfigKey(
        "container_name",
        None,
        parsers.text,
        "The container of the task definition that runs the command and decides the result. Required to launch.",
        is_optional=True,
    ),
    ConfigKey(
        "launch_type",
        None,
        parsers.launch_type,
        "FARGATE, EC2, EXTERNAL or MANAGED_INSTANCES. Empty, and no capacity_provider_strategy: FARGATE.",
        is_optional=True,
    ),
    ConfigKey(
        "capacity_provider_strategy",
        None,
        parsers.json_value(list, "a JSON list of capacity providers"),
        "Instead of launch_type, a JSON list: "
        '[{"capacityProvider": "FARGATE_SPOT", "weight": 1}]. []: the cluster\'s default strategy.',
        is_optional=True,
    ),
    ConfigKey(
        "platform_version",
        CONFIG_DEFAULTS["platform_version"],
        parsers.text,
        "Fargate's platform version; not sent for anything but Fargate.",
        is_optional=True,
    ),
    ConfigKey(
        "subnets",
        None,
        parsers.text_list,
        "Separated by commas, or a JSON list. Required for Fargate.",
        is_optional=True,
    ),
    ConfigKey("security_groups", None, parsers.text_list, "Separated by commas, or a JSON list.", is_optional=True),
    ConfigKey(
        "assign_public_ip",
        CONFIG_DEFAULTS["assign_public_ip"],
        parsers.boolean,
        "Whether a task gets a public IP address (Fargate).",
    ),
    ConfigKey(
        "max_run_task_attempts",
        CONFIG_DEFAULTS["max_run_task_attempts"],
        parsers.integer(1),
        "How often a request is attempted. Throttling and lack of capacity are waited for and do not count.",
    ),
    ConfigKey(
        "run_task_kwargs",
        None,
        parsers.json_value(dict, "a JSON object"),
        "A JSON object with further arguments of run_task, merged below the request's executor_config: "
        '{"tags": [{"key": "team", "value": "data"}]}',
        is_optional=True,
    ),
    ConfigKey(
        "check_health_on_startup",
        CONFIG_DEFAULTS["check_health_on_startup"],
        parsers.boolean,
        "Whether a worker asks AWS for the cluster when it starts, and says what it finds.",
    ),
    ConfigKey(
        "weight",
        "1",
        parsers.integer(1),
        "The share of a queue in the launches of a worker that several queues wait for: one of weight 2 has two turns "
        "where one of weight 1 has one.",
    ),
    ConfigKey(
        "max_in_flight",
        "0",
        parsers.integer(0),
        "Tasks of one queue in flight at the same time, each queue for itself. 0: no limit.",
    ),
    ConfigKey(
        "event_queue_url",
        None,
        parsers.queue_url,
        "The events queue of this queue's tasks, where it is not the one of [ecs_queue]: other accounts or Regions.",
        is_optional=True,
    ),
    ConfigKey(
        "role_arn",
        None,
        parsers.role_arn,
        "A role that the worker assumes for this queue's tasks: other accounts.",
        is_optional=True,
    ),
    ConfigKey(
        "endpoint_url",
        None,
        parsers.http_url,
        "Another ECS endpoint. Empty: AWS_ENDPOINT_URL_ECS, AWS_ENDPOINT_URL, or AWS itself.",
        is_optional=True,
    ),
    ConfigKey(
        "allowed_overrides",
        None,
        parsers.override_names,
        "Instead of allowed_overrides in [ecs_queue]: what requests to this queue may override.",
        is_optional=True,
    ),
)

MAIN_KEYS = {key.name: key for key in _MAIN_KEYS}
PROFILE_KEYS = {key.name: key for key in _PROFILE_KEYS}
