"""Every configuration key: its default, its parser and its meaning. The file, the loader and the docs follow this list.

A default is text, as it would stand in a file; None means that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecs_queue.config import parsers
from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS, CONFIG_GROUP_NAME
from ecs_queue.runtask.overrides import ALLOW_SAFE, SAFE_OVERRIDES

MAIN_SECTION = "ecs_queue"
PROFILE_SECTION = CONFIG_GROUP_NAME
#: Keys of [ecs_queue] whose values are secrets: only these may be given as a command or in a secrets backend, as
#: Airflow has it for the keys that a provider declares sensitive.
SECRET_KEYS = frozenset({"broker_url", "ledger_url", "signing_keys", "encryption_keys"})


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key.

    Attributes:
        name: its name in a file.
        default: its default as text; None if there is none.
        parse: converts text to the value.
        doc: what it means, for users.
        may_be_none: an empty value means None although there is a default.
    """

    name: str
    default: str | None
    parse: parsers.Parser
    doc: str
    may_be_none: bool = False

    @property
    def is_optional(self) -> bool:
        """Whether an empty value means None; otherwise it means the default."""
        return self.may_be_none or self.default is None


_MAIN_KEYS = (
    ConfigKey(
        "broker_url",
        "redis://127.0.0.1:6379/0",
        parsers.store_url,
        "Server of the request and result messages: redis://, rediss:// (TLS) or memory:// (one process, for tests).",
    ),
    ConfigKey("ledger_url", None, parsers.store_url, "Server of the records. Empty: the same server as broker_url."),
    ConfigKey(
        "namespace",
        "ecs-queue",
        parsers.matching(r"[A-Za-z0-9_-]{1,32}", "1 to 32 of A-Z a-z 0-9 _ -"),
        "Separates several installations on one server and one cluster; it begins every key and every startedBy.",
    ),
    ConfigKey("concurrency", "32", parsers.integer(1), "Maximum number of concurrent RunTask calls of one worker."),
    ConfigKey(
        "run_task_rate",
        "20",
        parsers.number(0, "calls a second"),
        "RunTask and StopTask calls per second of all workers together. 0: no limit. 20 is AWS's quota on Fargate.",
    ),
    ConfigKey(
        "run_task_burst",
        "100",
        parsers.integer(1),
        "RunTask calls that may be made at once after an idle time. 100 is AWS's quota.",
    ),
    ConfigKey(
        "describe_tasks_rate",
        "20",
        parsers.number(0, "calls a second"),
        "DescribeTasks and ListTasks calls per second of all workers together. 0: no limit. 20 is AWS's quota.",
    ),
    ConfigKey(
        "describe_tasks_burst",
        "100",
        parsers.integer(1),
        "DescribeTasks calls that may be made at once after an idle time. 100 is AWS's quota.",
    ),
    ConfigKey(
        "lease_seconds",
        "30",
        parsers.positive_seconds,
        "How long a claim on a record is valid. Other workers take over a dead worker's records after this time. It "
        "must be longer than call_budget_seconds + connect_timeout_seconds + read_timeout_seconds, whose defaults "
        "shrink with it.",
    ),
    ConfigKey(
        "settle_seconds",
        "600",
        parsers.number(0),
        "How long after the last possible RunTask call an empty result of ListTasks proves that no task exists: 5 "
        "minutes for which AWS accepts a signed call, and 5 for clock skew and visibility.",
    ),
    ConfigKey(
        "call_budget_seconds",
        "5",
        parsers.positive_seconds,
        "Time after the claim at which RunTask is not sent any more. Default: 5, or 15 % of a shorter lease.",
    ),
    ConfigKey(
        "connect_timeout_seconds",
        "5",
        parsers.positive_seconds,
        "Time limit to connect to AWS. Default: 5, or 15 % of a shorter lease.",
    ),
    ConfigKey(
        "read_timeout_seconds",
        "15",
        parsers.positive_seconds,
        "Time limit for AWS's response. Default: 15, or 50 % of a shorter lease.",
    ),
    ConfigKey(
        "durability",
        "server",
        parsers.one_of("server", "aof", "replica"),
        "What makes a claim durable before ECS is called. server: the server's own settings (appendfsync always, "
        "MemoryDB). aof: wait for the append-only file (WAITAOF). replica: wait for a replica (WAIT).",
    ),
    ConfigKey(
        "launch_deadline",
        "86400",
        parsers.positive_seconds,
        "Seconds that a request without an expiry of its own waits for capacity before it is EXPIRED.",
    ),
    ConfigKey("retention_seconds", "86400", parsers.positive_seconds, "How long a result is kept after its delivery."),
    ConfigKey(
        "max_in_flight", "0", parsers.integer(0), "Maximum number of tasks in flight in this namespace. 0: no limit."
    ),
    ConfigKey(
        "event_queue_url",
        None,
        parsers.queue_url,
        "The URL of the SQS queue to which EventBridge sends this namespace's ECS events (docs/events.md). Empty: "
        "workers poll all tasks.",
    ),
    ConfigKey(
        "visibility_timeout",
        "60",
        parsers.positive_seconds,
        "Seconds after which a message that a worker received and did not acknowledge is delivered again.",
    ),
    ConfigKey(
        "max_deliveries",
        "5",
        parsers.integer(1),
        "Number of workers in a row that may die with a request; then it becomes a dead letter and FAILED.",
    ),
    ConfigKey(
        "sweep_after_seconds",
        "5",
        parsers.positive_seconds,
        "Time after which a worker claims a queued record whose message has not arrived.",
    ),
    ConfigKey(
        "startup_allowance",
        "0",
        parsers.number(0),
        "Seconds that a container needs to start: a request that expires sooner is not launched.",
    ),
    ConfigKey(
        "accept_seconds",
        "86400",
        parsers.positive_seconds,
        "How long after its submission a message may create a record. A later message becomes a dead letter.",
    ),
    ConfigKey(
        "retry_base_seconds",
        "2",
        parsers.number(0.05),
        "The shortest delay before a retry; it doubles with every retry. Below 2 only for tests: a ledger that loses "
        "its last second at a fail-over must not lose two launch numbers.",
    ),
    ConfigKey("retry_cap_seconds", "60", parsers.number(0.05), "The longest delay before a retry."),
    ConfigKey(
        "socket_timeout_seconds",
        "5",
        parsers.positive_seconds,
        "Time limit for the broker's and the ledger's responses.",
    ),
    ConfigKey(
        "signing_keys",
        None,
        parsers.signing_keys,
        "Keys that sign messages and records, separated by commas, each ID:SECRET; the first key signs, all keys "
        "verify. With a key set, unsigned requests are not launched. SECRET is text of 32 characters or more (openssl "
        "rand -hex 32).",
    ),
    ConfigKey(
        "encryption_keys",
        None,
        parsers.encryption_keys,
        "Fernet keys, separated by commas, that encrypt commands and executor_config in messages and records; the "
        "first encrypts, all decrypt. Needs ecs-queue[encryption].",
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
        "Whether workers and clients keep a journal on the ledger's server: every envelope, decision and ECS result, "
        "secrets redacted. Timelines and replays are made from it.",
    ),
    ConfigKey(
        "journal_megabytes",
        "256",
        parsers.integer(1),
        "About the maximum size of the journal in the server's memory; the oldest events are dropped first. A task "
        "takes 1 to 2 kB.",
    ),
    ConfigKey(
        "journal_retention_seconds",
        "604800",
        parsers.positive_seconds,
        "Maximum age of a journal event. Applied with every write.",
    ),
)

_PROFILE_KEYS = (
    ConfigKey(
        "conn_id",
        CONFIG_DEFAULTS["conn_id"],
        parsers.text,
        "The Airflow connection with the credentials, if Airflow and its amazon provider are installed; otherwise, or "
        "when empty, boto3's own credential chain is used.",
        may_be_none=True,
    ),
    ConfigKey("region_name", None, parsers.text, "The AWS region. Empty: boto3's own (AWS_REGION)."),
    ConfigKey("cluster", None, parsers.text, "Name or ARN of the ECS cluster. Required to launch."),
    ConfigKey(
        "task_definition",
        None,
        parsers.text,
        "Family, family:revision or ARN of the task definition. Required to launch.",
    ),
    ConfigKey(
        "container_name",
        None,
        parsers.text,
        "The container of the task definition that runs the command and decides the result. Required to launch.",
    ),
    ConfigKey(
        "launch_type",
        None,
        parsers.launch_type,
        "FARGATE, EC2 or EXTERNAL; Managed Instances need a capacity_provider_strategy. "
        "Empty, and no capacity_provider_strategy: FARGATE.",
    ),
    ConfigKey(
        "capacity_provider_strategy",
        None,
        parsers.json_value(list, "a JSON list of capacity providers"),
        "Instead of launch_type, a JSON list: "
        '[{"capacityProvider": "FARGATE_SPOT", "weight": 1}]. []: the cluster\'s default strategy.',
    ),
    ConfigKey(
        "platform_version",
        CONFIG_DEFAULTS["platform_version"],
        parsers.text,
        "Fargate's platform version; sent for Fargate only.",
        may_be_none=True,
    ),
    ConfigKey("subnets", None, parsers.text_list, "Separated by commas, or a JSON list. Required for Fargate."),
    ConfigKey("security_groups", None, parsers.text_list, "Separated by commas, or a JSON list."),
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
        "Maximum number of attempts of a request. Waits for throttling and for capacity do not count.",
    ),
    ConfigKey(
        "run_task_kwargs",
        None,
        parsers.json_value(dict, "a JSON object"),
        "A JSON object with further arguments of run_task, merged below the request's executor_config: "
        '{"tags": [{"key": "team", "value": "data"}]}',
    ),
    ConfigKey(
        "check_health_on_startup",
        CONFIG_DEFAULTS["check_health_on_startup"],
        parsers.boolean,
        "Whether a worker checks the cluster with AWS when it starts, and logs what it finds.",
    ),
    ConfigKey(
        "weight",
        "1",
        parsers.integer(1),
        "A queue's share of a worker's launches while several queues wait: weight 2 gets two launches for each launch "
        "of weight 1.",
    ),
    ConfigKey("max_in_flight", "0", parsers.integer(0), "Maximum number of this queue's tasks in flight. 0: no limit."),
    ConfigKey(
        "event_queue_url",
        None,
        parsers.queue_url,
        "The event queue for this queue's tasks, if it differs from that of [ecs_queue]: other accounts or Regions.",
    ),
    ConfigKey(
        "role_arn", None, parsers.role_arn, "A role that the worker assumes for this queue's tasks: other accounts."
    ),
    ConfigKey(
        "endpoint_url",
        None,
        parsers.http_url,
        "Another ECS endpoint. Empty: AWS_ENDPOINT_URL_ECS, AWS_ENDPOINT_URL, or AWS itself.",
    ),
    ConfigKey(
        "allowed_overrides",
        None,
        parsers.override_names,
        "What requests to this queue may override, instead of allowed_overrides in [ecs_queue].",
    ),
)

MAIN_KEYS = {key.name: key for key in _MAIN_KEYS}
PROFILE_KEYS = {key.name: key for key in _PROFILE_KEYS}
