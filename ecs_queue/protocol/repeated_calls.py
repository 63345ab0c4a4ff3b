"""Gives an operation under a claim token the same answer when it runs again.

A client library repeats a call whose reply was lost. The second run finds the record as the first one left it, and must
not take that for a write of another worker. So a record keeps the last answer under a claim token, until a new claim is
made or the launch ends in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from ecs_queue.protocol.record import Record

_Claim = TypeVar("_Claim", bound=ClaimRequest | str | None)
_Rest = ParamSpec("_Rest")
_Operation = Callable[Concatenate[Record, _Claim, _Rest], ResultCode]

#: These answers wrote nothing, so none is kept: a repeated call decides again.
_NOT_KEPT = frozenset({ResultCode.NOT_CLAIMABLE, ResultCode.CLAIM_LOST, ResultCode.NO_RUNNER})


def same_answer_again(operation: _Operation[_Claim, _Rest]) -> _Operation[_Claim, _Rest]:
    """Decorate an operation of the state machine whose second parameter is a claim request or a claim token."""

    @wraps(operation)
    def run(record: Record, claim: _Claim, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> ResultCode:
        token = _token_of(claim)
        answer = find_answer(record, operation.__name__, token)
        if answer is None:
            answer = operation(record, claim, *args, **kwargs)
            if token and answer not in _NOT_KEPT:
                record.last_answer = f"{operation.__name__} {token} {answer.value}"
        return answer

    return run


def _token_of(claim: ClaimRequest | str | None) -> str:
    return claim.claim if isinstance(claim, ClaimRequest) else claim or ""


def find_answer(record: Record, operation: str, claim_token: str) -> ResultCode | None:
    """Return what this very call was answered before, None if the record does not know it (any more)."""
    known, _, answer = record.last_answer.rpartition(" ")
    return ResultCode(answer) if claim_token and known == f"{operation} {claim_token}" else None
