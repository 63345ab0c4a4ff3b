"""A shim for tools that still call setup.py; all metadata stands in setup.cfg."""

from setuptools import setup

setup()
