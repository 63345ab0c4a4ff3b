"""Ends a fork of preloaded modules as a new process ends, without the time that it takes to tear those modules down."""

from __future__ import annotations

import ctypes
import gc
import io
import sys
import types
import weakref
from collections.abc import Sequence
from contextlib import suppress

_File = io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom
#: What the end of an object may call.
_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


class QuickEnd:
    """Ends a fork after all other `atexit` functions, in place of the interpreter's finalization.

    Finalization destroys all modules: with Airflow 0.1 s of processor time, most of it to copy pages that forks share.
    So the preloaded modules are left alone, and the files that they have open are flushed.
    """

    def __init__(self) -> None:
        """Prepare. Set `exit_status` to the program's; None: it has raised something else."""
        self.exit_status: object = None
        self._libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, as its own end does: no daemon thread runs on
        self._modules = frozenset[str]()
        self._files: list[weakref.ref[_File]] = []

    def share_modules(self) -> None:
        """Note what forks will share: what is imported and open now. What was written until now is written once."""
        self._modules = frozenset(sys.modules) - {"__main__"}  # in a fork that is its program
        files = _find_files()
        _flush(files)
        self._libc.fflush(None)
        self._files = [weakref.ref(file) for file in files]

    def __call__(self) -> None:
        """Tear down, and exit. The interpreter does that if the status is no number, or a stream cannot be flushed."""
        if not isinstance(self.exit_status, int):
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return
        self._flush_files()
        # What the program's own modules hold ends as it does in a new process: archives are closed, locks released.
        for module in [sys.modules.pop(name) for name in [*sys.modules] if name not in self._modules]:
            if isinstance(module, types.ModuleType):
                _release_objects(module)
        gc.collect()  # without the preloaded modules, which are frozen
        self._flush_files()
        self._libc.exit(self.exit_status & 0xFF)  # calls what C has registered

    def _flush_files(self) -> None:
        _flush([*(file() for file in self._files), *_find_files()])


def _release_objects(module: types.ModuleType) -> None:
    """Let go of a module's objects, the last first: a collection would end a file before what still writes to it."""
    values = vars(module)
    for name in reversed([*values]):
        if not name.startswith("__") and not isinstance(values[name], _CODE):
            values[name] = None


def _find_files() -> list[_File]:
    """The files that are open, without those that are frozen."""
    return [found for found in gc.get_objects() if isinstance(found, _File)]


def _flush(files: Sequence[_File | None]) -> None:
    for file in files:
        if file is not None:
            with suppress(OSError, ValueError):  # closed, say
                file.flush()
