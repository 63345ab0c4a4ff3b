"""The plugin of Airflow, through the entry point `airflow.plugins`: the page of `ecs-queue web` in Airflow's UI.

Every process of Airflow imports this module, each task's too. So it imports nothing but a few of Python's modules, and
reads the configuration only when the API server asks for the application or for the views.
"""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

#: Where the API server mounts the application. The views' addresses are relative to `[api] base_url`.
URL_PREFIX = "/ecs-queue"
_NAV_VIEW = {
    "name": "ecs-queue",
    "href": f"{URL_PREFIX[1:]}/",
    "destination": "nav",
    "category": "browse",
    "url_route": "ecs-queue",
}
#: Not an operator's extra link: the task itself stores that at its end, so one that was killed has none.
#: The run id comes last: some versions put it into the address unquoted, and it may hold anything but the other three.
_TASK_INSTANCE_VIEW = {
    "name": "ecs-queue",
    "href": f"{URL_PREFIX[1:]}/task-instances/{{DAG_ID}}/{{TASK_ID}}/{{MAP_INDEX}}/{{RUN_ID}}",
    "destination": "task_instance",
    "url_route": "ecs-queue-request",
}

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    _AirflowPlugin = Any
else:
    # Tasks have another module of plugins since Airflow 3.2, beside which this one would take long to import.
    _loader = sys.modules.get("airflow.plugins_manager") or sys.modules.get("airflow.sdk.plugins_manager")
    if _loader is None:
        from airflow import plugins_manager as _loader
    _AirflowPlugin = _loader.AirflowPlugin


class EcsQueuePlugin(_AirflowPlugin):  # type: ignore[misc]  # Airflow is not installed where types are checked
    """See the module's docstring. Airflow reads the attributes in its API server and for `airflow plugins`."""

    name = "ecs_queue"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The application, which opens no connection before its first request."""
        if self._mode == "off":
            return []
        from ecs_queue.airflow.page.app import PageApp

        app = PageApp(allow_changes=self._mode == "changes").build()
        return [{"app": app, "url_prefix": URL_PREFIX, "name": "ecs-queue"}]

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:
        """The page in the menu Browse, and the tab of a task instance."""
        return [] if self._mode == "off" else [dict(_NAV_VIEW), dict(_TASK_INSTANCE_VIEW)]

    @cached_property
    def _mode(self) -> str:
        """`airflow_page`, "off" for a page that cannot be shown; the log says why."""
        try:
            from ecs_queue.airflow.page.mode import read_page_mode

            return read_page_mode()
        except ImportError as error:
            _log.warning("ecs-queue: no page in Airflow's UI: it needs %s (pip install 'ecs-queue[web]')", error.name)
        except Exception as error:  # noqa: BLE001 - the API server serves more than this page
            from ecs_queue.error_text import error_text

            _log.error("ecs-queue: no page in Airflow's UI: %s", error_text(error))
        return "off"
