"""`ecs-queue runner`: the container's process of a warm pool, which runs one command after the other.

It starts often, so it imports little: no client of AWS or Redis, no command line, no configuration.
"""
