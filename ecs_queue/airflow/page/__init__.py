"""The page of `ecs-queue web` in the UI of Airflow, behind its log-in and permissions (docs/airflow.md)."""
