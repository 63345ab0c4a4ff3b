"""Airflow's configuration by its documented rules, usable where Airflow is not installed."""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from ecs_queue.config.main_keys import SECRET_KEYS


class FakeAirflowConf(configparser.ConfigParser):
    """Stands for `airflow.configuration.conf`: an airflow.cfg, variables, and a secrets backend."""

    def __init__(
        self, text: str = "", environ: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._environ = environ or {}
        self._secrets = secrets or {}
        self.read_string(text)

    def optionxform(self, optionstr: str) -> str:
        return optionstr

    def get(  # type: ignore[override]
        self, section: str, key: str, *, fallback: str | None = None, **options: Any
    ) -> str | None:
        """Variable, then airflow.cfg; in each the value, then the command's, then the secret's."""
        if options.get("raw"):  # configparser asks for what a value refers to
            return super().get(section, key, raw=True)
        team_name = options.get("team_name")
        section, key = section.lower(), key.lower()
        team = f"{team_name.upper()}___" if team_name else ""
        variable = f"AIRFLOW__{team}{section.replace('.', '_').upper()}__{key.upper()}"
        is_secret = section == "ecs_queue" and key in SECRET_KEYS
        if variable in self._environ:
            return _expand(self._environ[variable])
        if is_secret and f"{variable}_CMD" in self._environ:
            return _run(self._environ[f"{variable}_CMD"])
        if is_secret and f"{variable}_SECRET" in self._environ:
            return self._secrets.get(self._environ[f"{variable}_SECRET"])
        section = f"{team_name}={section}" if team_name else section
        if self.has_option(section, key):
            return _expand(super().get(section, key))
        if is_secret and not team_name and self.has_option(section, f"{key}_cmd"):
            return _run(super().get(section, f"{key}_cmd"))
        if is_secret and not team_name and self.has_option(section, f"{key}_secret"):
            return self._secrets.get(super().get(section, f"{key}_secret"))
        return fallback


def _expand(text: str) -> str:
    while (expanded := os.path.expanduser(os.path.expandvars(text))) != text:
        text = expanded
    return text


def _run(command: str) -> str:
    return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout
