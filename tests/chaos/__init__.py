"""All faults at once, on real processes: workers and the server are killed while ECS throttles and fails."""
