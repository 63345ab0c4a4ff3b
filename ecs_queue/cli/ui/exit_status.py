"""The exit statuses of the commands. 0 is success."""

from __future__ import annotations

#: The command's own "no": nothing found, a difference, a problem, a request that failed. Its help says which.
EXIT_FAILURE = 1
#: Bad input, a bad configuration, or a server that cannot be reached.
EXIT_USAGE = 2
#: A bug in ecs-queue (EX_SOFTWARE of sysexits.h).
EXIT_BUG = 70
#: The command did its work, and its answer cannot be written: stdout or --output is closed or full (EX_IOERR).
EXIT_OUTPUT = 74
#: Requests were submitted, or may have been, and the command could not go on (EX_TEMPFAIL).
EXIT_SUBMITTED = 75
#: `--timeout` is over, as for timeout(1).
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130
