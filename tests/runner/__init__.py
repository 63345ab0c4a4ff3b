"""The container's process of a warm pool."""
