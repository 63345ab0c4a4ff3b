"""Launcher workers: the services that take requests, launch them, follow their tasks and publish their results.

`worker.Worker` runs them all in one process; any number of workers share one namespace and none is special.
"""
