"""Development tools that need no account and no services: an embedded Redis server and a local ECS."""
