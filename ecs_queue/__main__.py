"""`python -m ecs_queue` is the command `ecs-queue`."""

from ecs_queue.cli.main import main

if __name__ == "__main__":
    main()
