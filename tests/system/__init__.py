"""The whole system in real processes: workers, a real Redis, an ECS endpoint, the command line."""
