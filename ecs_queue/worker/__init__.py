"""Launcher workers: services that take requests, launch them, follow them and tell how they ended.

`worker.Worker` runs them all in one process; any number of workers share one namespace and none is special.
"""
