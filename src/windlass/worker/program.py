"""A worker as the main thing of its process: signals govern it, and it ends with its parent."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.worker.parent import ParentLink
from windlass.worker.signals import handle_signals
from windlass.worker.worker import Worker

__all__ = ["run_as_program"]


async def run_as_program(worker: Worker, quarantine: Sequence[str] | None = None) -> None:
    """Run *worker* until a signal stops it; call it in the main thread.

    *quarantine* is the command that starts a process for suspects (``Worker.quarantine_command``).
    Raises what :meth:`Worker.run` raises.
    """
    link = ParentLink.find()
    worker.as_program(None if link is None else link.announce)
    worker.quarantine_command = quarantine
    restore = handle_signals(worker)
    if link is not None:
        link.watch(worker.stop)
    try:
        await worker.run()
    finally:
        restore()
