"""Prometheus and promtool: ``python -m tests.prometheus_package`` unpacks Debian's package, as `make prometheus` does.

It is unpacked and not installed: no service starts, and only an update of the package lists needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ("prometheus", "promtool")
_FOLDER = Path(__file__).parents[1] / ".venv-conf" / "debian"
_DOWNLOAD = ("apt-get", "--quiet", "download", "prometheus")
_UPDATE = ("apt-get", "--quiet", "update")
_TIMEOUT_SECONDS = 240


def find_program(name: str) -> str | None:
    """Return the path of one of `PROGRAMS`: on PATH, otherwise that of the unpacked package."""
    return shutil.which(name) or shutil.which(name, path=_FOLDER / "usr" / "bin")


def unpack() -> None:
    """Download Debian's package and unpack it.

    Raises:
        subprocess.CalledProcessError: it cannot be downloaded, after the package lists were updated.
        subprocess.TimeoutExpired: a command took more than four minutes.
    """
    with tempfile.TemporaryDirectory(prefix="ecs-queue-prometheus-") as folder:
        if _run(*_DOWNLOAD, folder=folder, check=False):
            as_root = () if os.geteuid() == 0 else ("sudo", "--non-interactive")
            _run(*as_root, *_UPDATE, folder=folder)
            _run(*_DOWNLOAD, folder=folder)
        (package,) = Path(folder).glob("prometheus_*.deb")
        _FOLDER.mkdir(parents=True, exist_ok=True)
        _run("dpkg-deb", "--extract", str(package), str(_FOLDER), folder=folder)


def _run(*command: str, folder: str, check: bool = True) -> int:
    return subprocess.run(command, cwd=folder, check=check, timeout=_TIMEOUT_SECONDS, stdout=sys.stderr).returncode


def main() -> int:
    """Unpack the package if a program is missing, and return the exit status."""
    if all(map(find_program, PROGRAMS)):
        return 0
    if shutil.which("apt-get") is None:
        print("prometheus is not installed, and there is no apt-get: what needs it is not checked")
        return 1 if os.environ.get("CI") else 0
    unpack()
    return 0


if __name__ == "__main__":
    sys.exit(main())
