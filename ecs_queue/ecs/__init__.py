"""Amazon ECS: the gateway over boto3, the classification of its responses, and its task events."""
