"""Fuzzing of everything that is decoded: `python -m tests.fuzz TARGET --seconds 600`."""
