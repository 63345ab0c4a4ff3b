"""Copies conf/ into what is installed, as `ecs-queue conf` shows it; all metadata stands in setup.cfg."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """Builds the package with the files of conf/ in `ecs_queue/conf/`.

    A link in the package would do the same, but not every copy of a repository keeps links.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable installation reads conf/ itself
            for source, target in self._conf_files():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(target for _, target in self._conf_files())]

    def _conf_files(self) -> list[tuple[str, str]]:
        folder = Path(self.build_lib, "ecs_queue", "conf")
        return [(str(path), str(folder / path.name)) for path in sorted(Path("conf").iterdir())]


setup(cmdclass={"build_py": BuildWithConf})
