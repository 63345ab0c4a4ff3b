"""What a runner asks of the kernel."""

from __future__ import annotations

import subprocess
import sys

_PR_GET_DUMPABLE, _PR_GET_CHILD_SUBREAPER = 3, 37


def _run(code: str) -> str:
    program = f"import ctypes, os, sys\nfrom ecs_queue.runner.processes import *\nlibc = ctypes.CDLL(None)\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_other_processes_of_the_user_do_not_see_its_environment() -> None:
    assert _run(f"hide_memory(); print(libc.prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0))") == "0"


def test_it_adopts_orphans_and_tells_whether_any_child_is_left() -> None:
    found = _run(
        "value = ctypes.c_int()\n"
        f"adopted = adopt_orphans(); libc.prctl({_PR_GET_CHILD_SUBREAPER}, ctypes.byref(value), 0, 0, 0)\n"
        "print(adopted, value.value, kill_children())"
    )
    assert found == "True 1 True"


def test_a_child_that_is_spared_lives_on() -> None:
    found = _run(
        "import subprocess\n"
        "spared, other = (subprocess.Popen(['sleep', '600']) for _ in range(2))\n"
        "lives = lambda: [os.path.exists(f'/proc/{child.pid}') for child in (spared, other)]\n"
        "print(kill_children([spared.pid]), lives()); kill_children(); print(lives())"
    )
    assert found == "True [True, False]\n[False, False]"


def test_children_are_found_with_and_without_the_kernels_lists() -> None:
    found = _run(
        "import subprocess; from ecs_queue.runner import processes\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(processes.find_children() == processes._find_children_by_parent() == {child.pid}); kill_children()"
    )
    assert found == "True"
