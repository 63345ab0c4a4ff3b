"""Every key of `[ecs_queue]`: its default, its parser and its meaning."""

from __future__ import annotations

import re

from ecs_queue.config import parsers
from ecs_queue.config.config_key import ConfigKey
from ecs_queue.runtask.overrides import ALLOW_SAFE, SAFE_OVERRIDES
from ecs_queue.server_url.iam import parse_iam_login

MAIN_SECTION = "ecs_queue"
#: Of `owner_prefix`, which is also the name of a submitter's user of the server.
OWNER_PREFIX_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,32}")
#: Each concurrent RunTask call has a thread.
MAX_CONCURRENCY = 1024
#: Keys whose values are secrets: only these may be given as a command, in a file, in AWS or in a secrets backend, as
#: Airflow has it for the keys that a provider declares sensitive.
SECRET_KEYS = frozenset({"broker_url", "ledger_url", "signing_keys", "encryption_keys"})

_MAIN_KEYS = (
    ConfigKey(
        "broker_url",
        "redis://127.0.0.1:6379/0",
        parsers.broker_url,
        "Server of the request and result messages: redis://, rediss:// (TLS), redis+cluster://, sentinel://, unix://, "
        "each with options (docs/configuration.md), amqp:// or amqps:// (RabbitMQ), sqs://, or memory:// (one process, "
        "for tests).",
    ),
    ConfigKey(
        "ledger_url",
        None,
        parsers.store_url,
        "Server of the records, a Redis or Valkey. Empty: the same server as broker_url.",
    ),
    ConfigKey(
        "broker_iam",
        None,
        parse_iam_login,
        "Logs in at broker_url with tokens of AWS's IAM in place of a password: elasticache:USER@CACHE or "
        "memorydb:USER@CLUSTER. The name of the cache may be left out if the host is AWS's own endpoint.",
    ),
    ConfigKey(
        "ledger_iam", None, parse_iam_login, "The same for ledger_url. Empty, and ledger_url too: that of broker_iam."
    ),
    ConfigKey(
        "namespace",
        "ecs-queue",
        parsers.matching(r"[A-Za-z0-9_-]{1,32}", "1 to 32 of A-Z a-z 0-9 _ -"),
        "Separates several installations on one server and one cluster; it begins every key and every startedBy.",
    ),
    ConfigKey(
        "owner_prefix",
        None,
        parsers.matching(OWNER_PREFIX_PATTERN.pattern, "1 to 32 of A-Z a-z 0-9 _ -"),
        "Begins the names under which this process receives its results. Empty: client, in Airflow airflow. A user of "
        "the server that submits may receive only those with its own prefix (docs/security.md).",
    ),
    ConfigKey(
        "concurrency",
        "32",
        parsers.integer(1, MAX_CONCURRENCY),
        "Maximum number of concurrent RunTask calls of one worker.",
    ),
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
        "http_client",
        "botocore",
        parsers.one_of("botocore", "curl"),
        "What sends the calls to ECS. curl: libcurl, needs ecs-queue[curl] and less of a worker's processor time. "
        "Through a proxy, with a client certificate and without verified TLS botocore sends them.",
    ),
    ConfigKey(
        "durability",
        "server",
        parsers.one_of("server", "aof", "replica"),
        "What makes a claim durable before ECS is called. server: the server's own settings (appendfsync always, "
        "MemoryDB). aof: wait for the append-only file (WAITAOF; not on AWS's stores). replica: wait for a replica "
        "(WAIT; ElastiCache). docs/production.md has the stores.",
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
        "runner_ttl",
        "15",
        parsers.number(1),
        "A runner of a warm pool that has not called for this time gets no request, and ECS is asked for its task.",
    ),
    ConfigKey(
        "runner_lost_seconds",
        "1800",
        parsers.number(60),
        "An idle runner that is silent for this time is stopped; one that cannot reach the server for this time exits.",
    ),
    ConfigKey(
        "stop_timeout",
        "30",
        parsers.number(0),
        "Time between SIGTERM and SIGKILL for a command that a runner of a warm pool is to stop.",
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
        "max_message_bytes",
        "1048576",
        parsers.integer(262144),
        "Maximum size in bytes of a message on the server, after base64. A larger request is not decoded: it becomes a "
        "dead letter with its first bytes.",
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
        "acting_user",
        None,
        parsers.person_name,
        "Who submits and stops requests, as records and the journal name it. Empty: the operating system's user; for "
        "Airflow its executor.",
    ),
    ConfigKey(
        "airflow_labels",
        None,
        parsers.airflow_labels,
        "Labels of Airflow's tasks, separated by commas: dag_id, task_id, run_id, map_index, team. Set it when all "
        "workers know it.",
    ),
    ConfigKey(
        "airflow_page",
        None,
        parsers.one_of("off", "read", "changes"),
        "What the page in Airflow's UI offers to users with the rights (docs/airflow.md#the-page-in-airflow): off = "
        "there is none, read, changes = also stop, replay, requeue, pause, resume, drain. Empty: read where [core] "
        "executor names ecs-queue's executor, otherwise off.",
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
        "What a request's executor_config may override; workers refuse the rest. Names, separated by commas: keys of "
        "the main container's override, containers.NAME.KEY for another container's, overrides.KEY for the whole "
        "task's, arguments of run_task, tags.KEY for a tag that the profile sets. "
        f"* is everything, none is nothing, safe is {', '.join(SAFE_OVERRIDES)}.",
    ),
    ConfigKey(
        "journal",
        "True",
        parsers.boolean,
        "Whether workers and clients keep a journal on the ledger's server: every envelope, decision and ECS result. "
        "Timelines and replays are made from it.",
    ),
    ConfigKey(
        "journal_redaction",
        "environment",
        parsers.one_of("secrets", "environment", "arguments"),
        "What the journal hides of a request that is not encrypted: secrets = values that look like passwords and "
        "tokens, environment = also the values of all environment variables, arguments = also commands. A replay needs "
        "what is hidden once more. With encryption_keys the journal has all of it, encrypted.",
    ),
    ConfigKey(
        "journal_megabytes",
        "256",
        parsers.integer(1),
        "About the maximum size of the journal in the server's memory; the oldest events are dropped first. A task "
        "takes 1 to 2 kB.",
    ),
    ConfigKey(
        "journal_element_bytes",
        "1048576",
        parsers.integer(512 * 1024),
        "Maximum size of one element of the journal (a batch of events), stored or inflated, and of one line of an "
        "exported file. Larger ones are neither written nor read.",
    ),
    ConfigKey(
        "journal_retention_seconds",
        "604800",
        parsers.positive_seconds,
        "Maximum age of a journal event. Applied with every write.",
    ),
    ConfigKey(
        "prices",
        None,
        parsers.prices,
        "Prices for `ecs-queue cost`, of your Region and architecture, in any currency, as JSON: "
        '{"FARGATE": {"vcpu_hour": NUMBER, "gb_hour": NUMBER}, "FARGATE_SPOT": {...}}. Without it only seconds are '
        "shown.",
    ),
    ConfigKey(
        "metrics_port",
        "0",
        parsers.integer(0, 65535),
        "The TCP port on which a worker answers /metrics, /healthz, /readyz and /scale (docs/metrics.md). 0: none. "
        "Each worker of a machine needs its own. Needs ecs-queue[metrics].",
    ),
    ConfigKey(
        "metrics_host",
        "127.0.0.1",
        parsers.matching(r"[A-Za-z0-9_.:-]{1,255}", "a host name or an IP address"),
        "The address on which it answers. 0.0.0.0 or ::, for scrapers on other machines: there is no password, so let "
        "only these reach the port.",
    ),
    ConfigKey(
        "otel_metrics",
        "False",
        parsers.boolean,
        "Whether a worker exports its metrics by OpenTelemetry, as the usual variables say: OTEL_METRICS_EXPORTER, "
        "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_METRIC_EXPORT_INTERVAL, OTEL_SERVICE_NAME ... "
        "(docs/metrics.md). Needs ecs-queue[otel].",
    ),
    ConfigKey(
        "otel_traces",
        "False",
        parsers.boolean,
        "Whether workers, clients and the command line export spans by OpenTelemetry, as the usual variables say: "
        "OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER ... (docs/tracing.md). Needs "
        "ecs-queue[otel].",
    ),
    ConfigKey(
        "cloudwatch_metrics",
        "False",
        parsers.boolean,
        "Whether a worker writes a line a minute for each of its queues to stdout, of which CloudWatch Logs makes "
        "metrics (docs/scaling.md).",
    ),
)

MAIN_KEYS = {key.name: key for key in _MAIN_KEYS}
