"""The wire format: requests and results as JSON, their signatures and encryption, and their JSON schemas."""
