"""The worker: claims jobs, runs them, and says what came of them. See ``worker.py`` for the whole."""

from __future__ import annotations

from windlass.worker.options import WorkerOptions
from windlass.worker.worker import Worker

__all__ = ["Worker", "WorkerOptions"]
