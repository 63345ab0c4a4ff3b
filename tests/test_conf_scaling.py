"""The files of conf/ for autoscalers name what ecs-queue writes and answers, in the shapes that their readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from ecs_queue.monitoring.emf import EMF_DIMENSIONS, EMF_METRICS, EMF_NAMESPACE
from ecs_queue.monitoring.scaling import ScaleSignal

CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize(
    ("name", "operation"),
    [("autoscaling-target.json", "register_scalable_target"), ("autoscaling-policy.json", "put_scaling_policy")],
)
def test_application_auto_scaling_takes_the_files(name: str, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    client = boto3.client("application-autoscaling", region_name="eu-west-1")
    with Stubber(client) as stubber:
        answer = {"PolicyARN": "arn:aws:autoscaling:1"} if operation == "put_scaling_policy" else {}
        stubber.add_response(operation, answer)
        getattr(client, operation)(**json.loads((CONF / name).read_text()))


def test_the_policy_reads_the_metrics_that_workers_write() -> None:
    policy = json.loads((CONF / "autoscaling-policy.json").read_text())
    *read, ratio = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]["Metrics"]
    for each in read:
        metric = each["MetricStat"]["Metric"]
        assert metric["Namespace"] == EMF_NAMESPACE
        assert metric["MetricName"] in EMF_METRICS
        assert [dimension["Name"] for dimension in metric["Dimensions"]] == list(EMF_DIMENSIONS)
    assert ratio["Expression"] == " / ".join(each["Id"] for each in read)


def test_the_scaled_object_reads_a_number_of_the_answer() -> None:
    document: Any = yaml.safe_load((CONF / "keda-scaled-object.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    (trigger,) = document["spec"]["triggers"]
    assert trigger["type"] == "metrics-api"
    assert urlsplit(trigger["metadata"]["url"]).path == "/scale"
    assert trigger["metadata"]["valueLocation"] in ScaleSignal.__struct_fields__
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA's metadata is text"
