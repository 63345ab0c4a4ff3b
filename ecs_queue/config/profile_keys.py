"""Every key of `[aws_ecs_executor]`, for all queues or one: its default, its parser and its meaning."""

from __future__ import annotations

from ecs_queue.config import parsers
from ecs_queue.config.config_key import ConfigKey
from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS, CONFIG_GROUP_NAME

PROFILE_SECTION = CONFIG_GROUP_NAME

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
        "Empty, and no capacity_provider_strategy: the cluster's default strategy; FARGATE if it has none.",
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
        "start_timeout",
        "0",
        parsers.number(0),
        "Seconds from RunTask to RUNNING for one attempt (docs/policies.md): a task that has not started by then is "
        "stopped, and the attempt counts as a failed start. 0: no limit.",
    ),
    ConfigKey(
        "retry_rules",
        None,
        parsers.retry_rules,
        "What follows an attempt that failed, a JSON list of at most 10 rules, the first that matches decides "
        '(docs/policies.md): [{"on_exit_code": "137", "action": "retry", "delay": "1m"}]. Where none matches, and '
        "when empty, the request's relaunch policy decides.",
    ),
    ConfigKey(
        "tag_labels",
        None,
        parsers.label_names,
        "Labels of a request that become tags of its task, separated by commas, or * for all (docs/policies.md): "
        "team, dag_id. Workers need ecs:TagResource.",
    ),
    ConfigKey(
        "capacity_fallback",
        None,
        parsers.capacity_fallback,
        "Where launches go when the queue's own capacity is refused or taken back, a JSON list of at most 5 variants "
        '(docs/policies.md): [{"capacity_provider_strategy": [{"capacityProvider": "FARGATE", "weight": 1}]}]. '
        "Members: launch_type, capacity_provider_strategy, platform_version, subnets, security_groups, "
        "assign_public_ip, cluster, region_name; the queue's own keys are the first variant.",
    ),
    ConfigKey(
        "capacity_fallback_after",
        "3",
        parsers.integer(1),
        "After this number of refusals for capacity in a row, launches go to the next variant of capacity_fallback. "
        "One Spot interruption is enough.",
    ),
    ConfigKey(
        "capacity_fallback_seconds",
        "300",
        parsers.number(1),
        "How long launches stay with another variant before the first one is tried again.",
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
        "max_starting",
        "0",
        parsers.integer(0),
        "Maximum number of this queue's tasks between their launch and RUNNING (docs/policies.md). 0: no limit.",
    ),
    ConfigKey(
        "max_per_key",
        "0",
        parsers.integer(0),
        "Maximum number of this queue's requests in flight that have the same concurrency key (docs/policies.md). "
        "0: no limit.",
    ),
    ConfigKey(
        "launch_rate",
        "0",
        parsers.number(0, "launches a second"),
        "Launches a second of this queue, by all workers together, within run_task_rate (docs/policies.md). "
        "0: no limit.",
    ),
    ConfigKey(
        "launch_burst",
        "1",
        parsers.integer(1),
        "Launches of this queue that may be made at once after an idle time, with launch_rate.",
    ),
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
    ConfigKey(
        "warm_seconds",
        "0",
        parsers.number(0),
        "How long the container of a request waits for the next request of its pool (docs/warm-pools.md). "
        "0: every request gets a task of its own.",
    ),
    ConfigKey(
        "warm_max_age",
        "0",
        parsers.number(0),
        "After this time the container of a warm pool takes no further request. 0: never.",
    ),
    ConfigKey(
        "runner_preload",
        None,
        parsers.text_list,
        "Python modules that the container of a warm pool imports once: `python -m` of one of them runs in a fork.",
    ),
)

PROFILE_KEYS = {key.name: key for key in _PROFILE_KEYS}
