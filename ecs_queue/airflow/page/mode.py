"""Reads whether there is a page in Airflow's UI."""

from __future__ import annotations

from importlib import import_module

from airflow.configuration import AIRFLOW_CONFIG, conf

from ecs_queue.airflow.config import AirflowSources
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION
from ecs_queue.errors import ConfigError

_KEY = "airflow_page"
#: What the page imports besides Airflow.
_NEEDED_MODULES = ("ecs_queue.web.app", "ecs_queue.airflow.page.app")


def read_page_mode() -> str:
    """Return off, read or changes. The other keys may be wrong: the page says so, and Airflow's UI works.

    Raises:
        ConfigError: The key has another value.
        ImportError: There is a page, and a package that it needs is missing.
    """
    raw = AirflowSources(conf, AIRFLOW_CONFIG).read().main.get(_KEY)
    if raw is None or not raw.text:
        mode = "read" if "ecs_queue." in (conf.get("core", "executor", fallback="") or "") else "off"
    else:
        try:
            mode = str(MAIN_KEYS[_KEY].parse(raw.text))
        except ConfigError as error:
            raise ConfigError(f"[{MAIN_SECTION}] {_KEY}: {error} (from {raw.origin})") from None
    for name in _NEEDED_MODULES if mode != "off" else ():
        import_module(name)
    return mode
