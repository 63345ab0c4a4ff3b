"""Labels that may become tags, and names of people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.messages.envelope import decode_request, encode
from ecs_queue.messages.labels import check_labels, check_name, fit_label_value
from ecs_queue.messages.request import TaskRequest, new_request
from tests.messages.golden_messages import golden


def request(**fields: Any) -> TaskRequest:
    return new_request(id="a", command=["true"], now=1_700_000_000.0, accept_seconds=86400.0, **fields)


def test_labels_are_of_version_2_and_are_read_as_they_were_written() -> None:
    made = request(labels={"team": "data", "dag_id": "nächtlich"}, submitted_by="ann")
    assert made == decode_request(golden("request-v2-labels")) == decode_request(encode(made))
    assert (made.v, request(submitted_by="ann").v, request(labels={}).v, request(labels=None).v) == (2, 1, 1, 1)


def test_who_submits_is_no_part_of_the_digest_and_labels_are() -> None:
    plain = request()
    assert request(submitted_by="ann").digest() == request(submitted_by="bob").digest() == plain.digest()
    assert request(labels={"a": "1", "b": "2"}).digest() == request(labels={"b": "2", "a": "1"}).digest()
    assert len({plain.digest(), request(labels={"a": "1"}).digest(), request(labels={"a": "2"}).digest()}) == 3


@pytest.mark.parametrize("person", ["ann\n", "\nann", "an\x1bn", "a" * 129])
def test_a_person_with_a_control_character_or_a_long_name_is_refused(person: str) -> None:
    message = json.loads(encode(request()))
    with pytest.raises(UndecodableMessage, match="submitted_by"):
        decode_request(json.dumps(message | {"submitted_by": person}).encode())


@pytest.mark.parametrize(
    "labels",
    [
        {"team": "data"},
        {"a" * 128: "b" * 256},
        {"k": ""},
        {"Größe 1": "a_b.c:d/e=f+g-h@i 日本"},
        dict.fromkeys("abc", "x"),
    ],
)
def test_what_a_tag_of_aws_may_be_is_a_label(labels: dict[str, str]) -> None:
    check_labels(labels)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"": "x"}, "expected keys of 1 to 128"),
        ({"a" * 129: "x"}, "expected keys of 1 to 128"),
        ({"a,b": "x"}, "expected keys of 1 to 128"),
        ({" a": "x"}, "expected keys of 1 to 128"),
        ({"aws:team": "x"}, "which AWS reserves"),
        ({"AWS:team": "x"}, "which AWS reserves"),
        ({"a": "aws:x"}, "a: expected a value that does not begin with aws:"),
        ({"a": "Aws:x"}, "a: expected a value that does not begin with aws:"),
        ({"a": "b" * 257}, "a: expected a value of at most 256"),
        ({"a": "x\n"}, "a: expected a value"),
        ({"a": "x\u202e"}, "a: expected a value"),
        ({"a": "50%"}, "a: expected a value"),
        ({str(n): "" for n in range(51)}, "at most 50"),
        ({"a": 5}, "labels: expected at most 50 texts by name"),
        (["team"], "labels: expected at most 50 texts by name"),
    ],
)
def test_what_could_not_be_a_tag_is_refused(labels: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        request(labels=labels)


def test_a_message_with_a_bad_label_or_of_version_1_is_refused() -> None:
    body = golden("request-v2-labels")
    with pytest.raises(UndecodableMessage, match="labels: expected keys that do not begin with aws:"):
        decode_request(body.replace(b'"team"', b'"aws:team"'))
    with pytest.raises(UndecodableMessage, match="labels needs the envelope version 2"):
        decode_request(body.replace(b'"v": 2', b'"v": 1'))
    with pytest.raises(UndecodableMessage, match="not a valid envelope"):
        decode_request(body.replace(b'"ann"', b'"a\\u001bnn"'))


def test_what_others_named_is_made_to_fit() -> None:
    assert fit_label_value("manual__2025-01-31T00:00:00+00:00") == "manual__2025-01-31T00:00:00+00:00"
    assert fit_label_value("50% [a]\n") == "50_ _a__"
    assert fit_label_value(" " * 300 + "x") == ""
    assert fit_label_value("AWS:batch:x") == "AWS_batch:x"
    check_labels({"a": fit_label_value("é%" * 300)})


@pytest.mark.parametrize("name", ["ann", "Ann Müller (on call)", "arn:aws:iam::1:role/x", "a" * 128])
def test_a_name_may_have_any_visible_characters(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "a" * 129, "a\nb", "\x1b[2J", "a\u202eb", " a", "\udcff", "\u2028"])
def test_a_name_has_no_control_characters(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 128 characters"):
        check_name(name)
