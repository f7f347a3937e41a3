"""``python -m measure NAME --scale S``: one run of one measurement; prints its figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from measure import drain, enqueue, http, idle, kept, latency
from measure.lab import Lab

MEASUREMENTS: dict[str, Callable[[Lab], Coroutine[Any, Any, dict[str, float]]]] = {
    "bulk": enqueue.bulk,
    "concurrent": enqueue.concurrent,
    "one_by_one": enqueue.one_by_one,
    "drain": drain.drain,
    "waiting": drain.waiting,
    "same_process": latency.same_process,
    "across_processes": latency.across_processes,
    "idle": idle.idle,
    "kept": kept.kept,
    "http": http.post,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    given = parser.parse_args()
    lab = Lab(given.folder, given.scale, os.environ["WINDLASS_DURABILITY"])
    lab.ledger.touch()
    if given.loop == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    else:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        figures = runner.run(MEASUREMENTS[given.name](lab))
    print("@@" + json.dumps(figures))


if __name__ == "__main__":
    main()
