"""The Airflow adapter: `executor = ecs_queue.airflow.executor.EcsQueueExecutor`. Nothing else imports Airflow."""
