"""While a command runs: reports that to the ledger in a thread, and reads whether the command must be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from ecs_queue.errors import EcsQueueError
from ecs_queue.runner.alarm import Alarm
from ecs_queue.runner.server import Server

#: A command that ends sooner costs neither a thread nor a second connection.
_FIRST_PAUSE_SECONDS = 1.0


class Heartbeat:
    """Runs as a context manager, for one command. Failures are left to the next beat: the command goes on."""

    def __init__(
        self,
        connect: Callable[[], Server],
        name: str,
        boot: str,
        turn: int,
        interval: float,
        on_cancel: Callable[[], None],
    ) -> None:
        """Prepare. Nothing happens until `start`.

        Args:
            connect: Makes the connection of the thread.
            name: The runner's.
            boot: The process's.
            turn: The command's.
            interval: Seconds between two beats; a wake-up brings the next one forward.
            on_cancel: Called once, in the thread, when the command must be cancelled.
        """
        #: When `start` is due: seconds after the start of the command.
        self.first_pause = min(_FIRST_PAUSE_SECONDS, interval)
        self._connect = connect
        self._beat_arguments = (name, boot, turn)
        self._interval = interval
        self._on_cancel = on_cancel
        self._ended: Alarm | None = None
        self._is_over = False
        self._lock = threading.Lock()  # the thread closes the alarm when it is over, and not before it is set

    def __enter__(self) -> Heartbeat:
        return self

    def start(self) -> bool:
        """Begin to report, if it has not begun; return False, to be called again, when the system gives no thread."""
        if self._ended is not None:
            return True
        ended = self._ended = Alarm()
        thread = threading.Thread(target=self._run, args=(self._connect(), ended), name="heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the command has taken all the processes that the container may have
            self._ended = None
            ended.close()
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_over = True
            if self._ended is not None:
                self._ended.set()

    def _run(self, server: Server, ended: Alarm) -> None:
        try:
            with server.interruptible(ended):
                is_cancelled = False
                while not self._is_over:
                    is_cancelled = self._beat(server, ended, is_cancelled=is_cancelled)
        finally:
            server.close()
            with self._lock:
                self._ended = None
                ended.close()

    def _beat(self, server: Server, ended: Alarm, *, is_cancelled: bool) -> bool:
        """Send one beat, then wait until the next one is due; return whether the command must be cancelled."""
        must_cancel = False
        try:
            must_cancel = server.ledger.beat(*self._beat_arguments)
            if must_cancel and not is_cancelled:
                with self._lock:
                    if not self._is_over:  # a late answer: the runner may run the next command by now
                        self._on_cancel()
            server.ledger.wait_for_wake(self._beat_arguments[0], self._interval)
        except EcsQueueError:
            ended.wait(self.first_pause)
        return is_cancelled or must_cancel
