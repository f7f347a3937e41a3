"""Child processes that run ``run_in="process"`` tasks, one job at a time each.

A child is an ordinary subprocess at the other end of a socket pair (:mod:`windlass.executors.child`).
It is started when it is needed, used again for the next job, and replaced after some hundred jobs, so
that what a library leaks does not gather. To end a run early is to kill its child. A child that dies
by itself takes nothing with it but its own job, which is told so.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import IncompleteReadError
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.context import Run
from windlass.errors import Discard, NonRetryable, ResultError, Retry, Snooze
from windlass.executors import ChildDied, RemoteError
from windlass.executors.messages import (
    HEADER,
    Failed,
    Finished,
    FromChild,
    Line,
    Order,
    Postponed,
    Progress,
    Reply,
    ToChild,
    decode_from_child,
    frame,
    kind_name,
)
from windlass.retry import RetryPolicy
from windlass.spawn import Spawned, obituary

if TYPE_CHECKING:
    from windlass.tasks import Task

__all__ = ["Processes"]

_JOBS_PER_CHILD = 500
_LAST_WORDS = 0.25
"""Seconds between the end of a child and the end of listening to it."""


class Processes:
    """The children of one worker. How many run at once is the business of the caller's slots."""

    def __init__(self, jobs_per_child: int = _JOBS_PER_CHILD) -> None:
        self._jobs_per_child = jobs_per_child
        self._idle: list[_Child] = []

    async def call(self, run: Run, task: Task[..., Any]) -> object:
        """Run a ``def`` in a child. Its result is JSON text.

        Raises:
            RemoteError: the function raised.
            ChildDied: the child ended, by itself or because the run was told to end.
        """
        order = _order(run, task)
        child = self._idle.pop() if self._idle else await _Child.start()
        try:
            answer = await child.run(run, order)
        except BaseException:
            await child.end()
            raise
        child.jobs += 1
        if child.jobs < self._jobs_per_child:
            self._idle.append(child)
        else:
            await child.end()
        return _value(answer, task.retry)

    async def close(self) -> None:
        """End the idle children."""
        while self._idle:
            await self._idle.pop().end()


class _Child:
    """One child process, and the conversation with it."""

    def __init__(
        self, process: Spawned, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.kill = process.kill
        self.jobs = 0
        process.on_gone = self._on_gone

    @classmethod
    async def start(cls) -> _Child:
        # On the loop's own thread: the kernel ends the child with the thread that started it.
        process = Spawned([sys.executable, "-m", "windlass.executors.child"])
        reader, writer = await asyncio.open_connection(sock=process.socket)
        return cls(process, reader, writer)

    async def run(self, run: Run, order: Order) -> Finished | Postponed | Failed:
        """Have one job run."""
        before, run.interrupt = run.interrupt, self.kill
        try:
            self._send(order)
            while True:
                match await self._receive():
                    case Progress(fraction, note):
                        self._send(Reply(await run.progress(fraction, note)))
                    case Line(line):
                        self._send(Reply(await run.log(line)))
                    case answer:
                        # It got through, even if it was killed in the same moment.
                        run.noticed = False
                        return answer
        except (IncompleteReadError, ConnectionError):
            # It is dying, or has merely closed its socket; then it dies of this.
            self.kill()
            await self._process.gone.wait()
            how = obituary(self._process.exit_code)
            raise ChildDied(f"The process that ran the job {how}.") from None
        finally:
            # From here on this child is idle, or somebody else's.
            run.interrupt = before

    async def end(self) -> None:
        """Kill it, and wait until it is gone, cancelled or not: its run has not ended before."""
        self._writer.transport.abort()
        await self._process.end()

    def _on_gone(self) -> None:
        # Programs that the task has started may hold the socket open, so its end alone would not tell.
        # What the child said last is still read first.
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._writer.transport.abort)

    def _send(self, message: ToChild) -> None:
        self._writer.write(frame(message))

    async def _receive(self) -> FromChild:
        length = int.from_bytes(await self._reader.readexactly(HEADER), "big")
        message: FromChild = decode_from_child(await self._reader.readexactly(length))
        return message


def _order(run: Run, task: Task[..., Any]) -> Order:
    function = task.function
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return Order(
        job=msgspec.json.encode(run.job),
        module=function.__module__,
        qualname=function.__qualname__,
        main=main,
        path=tuple(sys.path),
        context_param=task.context_param,
        deadline=run.deadline,
    )


def _value(answer: Finished | Postponed | Failed, policy: RetryPolicy) -> object:
    match answer:
        case Finished(result):
            return None if result is None else msgspec.Raw(result)
        case Postponed(delay):
            raise Snooze(delay)
        case Failed(fault, kinds, after):
            raise RemoteError(fault, _stand_in(policy, kinds, after))


def _stand_in(
    policy: RetryPolicy, kinds: tuple[str, ...], after: float | None
) -> BaseException | None:
    """An exception for which *policy* decides as it would have for the one in the child.

    Only classes that the policy or Windlass names are made, never one that the child named.
    """
    known = {kind_name(kind): kind for kind in (*policy.exceptions, *_TELLING)}
    kind = next((known[name] for name in kinds if name in known), None)
    if kind is None:
        return None if after is None else Retry(after=after)
    cause: Any = kind.__new__(kind)
    if isinstance(cause, Retry):
        cause.after = None if after is None else timedelta(seconds=after)
    else:
        cause.retry_after = after
    return cause  # type: ignore[no-any-return]


_TELLING: tuple[type[BaseException], ...] = (Retry, Discard, NonRetryable, ResultError)
