"""What a worker shows of itself and of its queues: metrics, health, and the signal for scaling."""
