"""An auth manager whose users have rights to some DAGs only, as those of other auth managers may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

#: Whether a user may do something: the method, what of the DAG ("" for itself), the DAG's id.
Rule = Callable[[str, str, str], bool]


def _reads(method: str) -> bool:
    return method == "GET"


USERS: dict[str, Rule] = {
    "reads_all": lambda method, what, dag: _reads(method),
    "edits_all": lambda method, what, dag: True,
    "edits_pools": lambda method, what, dag: True,
    "reads_a": lambda method, what, dag: _reads(method) and dag == "a",
    "reads_a_without_logs": lambda method, what, dag: _reads(method) and dag == "a" and what != "TASK_LOGS",
    "reads_a_and_b": lambda method, what, dag: _reads(method) and dag in ("a", "b"),
    "reads_all_but_b": lambda method, what, dag: _reads(method) and dag != "b",
    "reads_all_without_logs": lambda method, what, dag: _reads(method) and what != "TASK_LOGS",
    "edits_a": lambda method, what, dag: _reads(method) or dag == "a",
    "nothing": lambda method, what, dag: False,
}


class DagAuthManager(SimpleAuthManager):  # type: ignore[misc]  # Airflow is not installed where types are checked
    """Asks the rule of the user's name."""

    asked = 0

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        type(self).asked += 1
        what = access_entity.value if access_entity else ""
        return USERS[user.get_id()](str(method), what, (details.id if details else None) or "")

    def is_authorized_pool(self, *, method: Any, user: Any, details: Any = None) -> bool:
        return user.get_id() == "edits_pools" or str(method) == "GET"
