"""Airflow's configuration, faked: usable where Airflow is not installed."""

from __future__ import annotations


class FakeAirflowConf:
    """Stands for Airflow's: (section, key) -> value."""

    def __init__(self, values: dict[tuple[str, str], str]) -> None:
        self.values = values

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        return self.values.get((section, key), fallback)
