"""Amazon ECS as this project sees it: the gateway over boto3, its answers and their classification."""
