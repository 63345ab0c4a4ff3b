"""Commands a second on warm runners, where AWS allows 20 RunTask calls a second and throttles the rest."""

from __future__ import annotations

from bench.measurement import Measurement
from bench.quota import BURST, RATE
from bench.stack import quantile
from bench.warm import run_queue, warm_stack

RUNNERS = 40
WARM_SECONDS = 120
#: As that of `bench.warm`, without the 50 ms: the rate is what is measured.
SCRIPT = 'echo "$1 $(date +%s.%N)" >> "$2"'
#: As many at a time as there are runners, so that each has one while the pool becomes warm.
WARMING_SCRIPT = f"{SCRIPT}; sleep 8"


def run(tasks: int) -> list[Measurement]:
    """See `bench.__main__`."""
    with warm_stack(warm_seconds=WARM_SECONDS, provision_seconds=1.0, launch_quota=(RATE, BURST)) as stack:
        run_queue(stack, RUNNERS, RUNNERS, WARMING_SCRIPT)
        before, _ = stack.call_counts()
        used = stack.cpu_seconds()
        found = run_queue(stack, tasks, RUNNERS, SCRIPT)
        worker_share = (stack.cpu_seconds() - used)["workers"] * found.rate / tasks
        calls, throttled = stack.call_counts()
    more = calls["RunTask"] - before["RunTask"]
    return [
        Measurement(f"{RUNNERS} warm runners, {RATE} RunTask a second: commands/s", f"{found.rate:.0f}", ">= 100"),
        Measurement("  submit to start, p50", f"{1000 * quantile(found.delays, 0.5):.0f} ms"),
        Measurement("  RunTask calls for the runners; later", f"{before['RunTask']}; {more}"),
        Measurement("  throttled calls", str(sum(throttled.values())), "0"),
        Measurement("  worker's share of a core", f"{worker_share:.0%}"),
    ]
