"""Who may see and do what in Airflow: its auth manager decides, and nothing is sent in a visitor's name."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select
from starlette.requests import Request

from ecs_queue.web.access import LOOPBACK_NAMES, OTHER_ORIGIN, host_name, is_own_origin, security_headers
from ecs_queue.web.rights import CHANGES, LogIn, Refusal, Rights

#: No DAG can have this id. Who may read it may read every DAG: those that come, and those that are gone.
_EVERY_DAG = "every DAG"
#: An answer about all DAGs is used again for this time: an auth manager may ask another server about each. Seconds.
_CACHE_SECONDS = 15.0
_MAX_CACHED = 1000
_HEADERS = security_headers(framed=True)

User = Any  # of the auth manager


class PageAccess:
    """The rules of the page in Airflow, as `AccessRules`.

    - The pages about all requests are for users who may read the task instances and the logs of every DAG.
    - `find_rights` is for the request of one task instance: its DAG's rights decide.
    - A stop is for users who see all and may edit the task instances of every DAG. The other changes affect whole
      queues: they are for those who may edit pools, too.
    - Arguments stay hidden: they hold the token with which a task calls Airflow.
    """

    def __init__(
        self, *, allow_changes: bool, base_url: str, secret: bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make the rules.

        Args:
            allow_changes: Whether who has the rights may change something.
            base_url: `[api] base_url`, under which browsers know Airflow; "" if it is not set.
            secret: Makes the tokens of forms; the same in all API servers.
            clock: Monotonic.
        """
        self._allow_changes, self._clock = allow_changes, clock
        self._base_name = (urlsplit(base_url).hostname or "").lower()
        self._secret = secret
        self._answers: dict[tuple[str, str], tuple[float, bool]] = {}

    @property
    def security_headers(self) -> Mapping[str, str]:
        """See AccessRules. Pages of Airflow's own origin may show the page in a frame."""
        return _HEADERS

    @property
    def allow_changes(self) -> bool:
        """See AccessRules."""
        return self._allow_changes

    @property
    def login(self) -> LogIn | None:
        """See AccessRules: visitors log in at Airflow."""
        return None

    @property
    def advice(self) -> str:
        """See AccessRules."""
        return (
            "All requests are for users who may read the task instances and logs of every DAG in Airflow, changes for "
            "those who may also edit them and pools. The request of one task is in the tab of its task instance"
        )

    def refuse(self, request: Request) -> Refusal | None:
        """See AccessRules. A look needs no check of the host: a browser sends Airflow's cookie to its host only."""
        if request.method in ("GET", "HEAD"):
            return None
        names = {self._base_name, *LOOPBACK_NAMES}
        if host_name(request.headers.get("host", "")) not in names - {""}:
            advice = "a change needs the name in [api] base_url, and a proxy that passes Host on"
            return Refusal(421, f"this server has another name: {advice}")
        if not is_own_origin(request.headers):
            return Refusal(403, OTHER_ORIGIN)
        return None

    def rights(self, request: Request) -> Rights:
        """See AccessRules."""
        user = visitor(request)
        if not self._may_on_every_dag(user, "GET"):
            return Rights()
        changes = frozenset[str]()
        if self._allow_changes and self._may_on_every_dag(user, "PUT"):
            may_edit_pools = get_auth_manager().is_authorized_pool(method="PUT", user=user)
            changes = CHANGES if may_edit_pools else frozenset({"stop"})
        return Rights(look=True, output=True, changes=changes)

    def find_rights(self, request: Request, dag_id: str) -> Rights:
        """Return what the visitor may do with a request of this DAG."""
        user, team = visitor(request), DagModel.get_team_name(dag_id)

        def may_read(entity: DagAccessEntity) -> bool:
            details = DagDetails(id=dag_id, team_name=team)
            return bool(
                get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)
            )

        if not may_read(DagAccessEntity.TASK_INSTANCE):
            return Rights()
        changes = self.rights(request).changes
        return Rights(look=True, output=may_read(DagAccessEntity.TASK_LOGS), changes=changes)

    def actor(self, request: Request) -> str:
        """See AccessRules."""
        name = "".join(letter for letter in str(visitor(request).get_name()) if letter.isprintable())
        return f"{name[:100]} in Airflow"

    def form_token(self, request: Request) -> str:
        """See AccessRules. The token is the user's own."""
        return hmac.new(self._secret, f"form {_user_id(visitor(request))}".encode(), "sha256").hexdigest()

    def is_genuine(self, request: Request, form_token: str) -> bool:
        """See AccessRules."""
        return hmac.compare_digest(form_token.encode(), self.form_token(request).encode())

    def _may_on_every_dag(self, user: User, method: str) -> bool:
        key, now = (_user_id(user), method), self._clock()
        expires_at, answer = self._answers.get(key, (0.0, False))
        if now >= expires_at:
            answer = _ask_about_every_dag(user, method)
            if len(self._answers) >= _MAX_CACHED:
                self._answers.clear()
            self._answers[key] = now + _CACHE_SECONDS, answer
        return answer


def set_visitor(request: Request, user: User) -> None:
    """Remember which user of Airflow sent the request."""
    request.state.ecs_queue_user = user


def visitor(request: Request) -> User:
    """Return the user who sent the request. AttributeError for a request that came past Airflow's log-in."""
    return request.state.ecs_queue_user


def _user_id(user: User) -> str:
    return str(user.get_id())


def _ask_about_every_dag(user: User, method: str) -> bool:
    entities = [DagAccessEntity.TASK_INSTANCE]
    if method == "GET":
        entities.append(DagAccessEntity.TASK_LOGS)
    with create_session() as session:
        dag_ids = [_EVERY_DAG, *session.scalars(select(DagModel.dag_id))]
    teams = DagModel.get_dag_id_to_team_name_mapping(dag_ids) if _has_teams() else {}
    requests = [
        {"method": method, "access_entity": entity, "details": DagDetails(id=dag_id, team_name=teams.get(dag_id))}
        for dag_id in dag_ids
        for entity in entities
    ]
    return bool(get_auth_manager().batch_is_authorized_dag(requests, user=user))


def _has_teams() -> bool:
    return bool(conf.getboolean("core", "multi_team", fallback=False))
