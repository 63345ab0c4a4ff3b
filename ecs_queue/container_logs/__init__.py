"""Reads what a task's container wrote: CloudWatch Logs, or the local ECS's files."""
