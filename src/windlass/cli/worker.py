"""``windlass worker``: one worker in this process, or a supervisor over several."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.output import say
from windlass.cli.process import (
    Forcible,
    make_supervisor,
    make_worker,
    run_loop,
    set_up_logs,
    work_options,
)
from windlass.cli.session import app_argument, find_app, use_url

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.config import Settings

__all__ = ["worker"]


@click.command
@app_argument
@click.option("--workers", "-n", envvar="WINDLASS_WORKERS", type=click.IntRange(1, 256),
              help="Worker processes.  [default: 1]")  # fmt: skip
@work_options
@click.option("--durability", hidden=True, envvar="WINDLASS_DURABILITY")
@click.option("--drain", is_flag=True, help="End when nothing is left that could run now.")
@click.option("--quarantine", is_flag=True, help="Run only jobs that died with their workers.")
def worker(
    app: str | None,
    url: str | None,
    reload: bool,
    drain: bool,
    quarantine: bool,
    **given: Any,
) -> None:
    """Run workers only.

    MODULE:APP names the app, as for serve. A process that dies is replaced when there are several.

    \b
    windlass worker shop.jobs:app
    windlass worker -n 4 --queues mail,reports
    windlass worker --drain              work off what is there, then end
    """
    from windlass.config import Settings, load_app

    if reload:
        from windlass.cli.reload import run_reloading

        raise click.exceptions.Exit(run_reloading("worker", sys.argv[1:]))
    settings = Settings.load(app=app, url=url, **given)
    target, how = find_app(app)
    loaded = load_app(target)
    set_up_logs(settings, loaded)
    if url is not None:
        use_url(loaded, url)
    if settings.workers > 1 and not quarantine:
        code = run_loop(_supervise(loaded, target, how, settings, drain))
    else:
        code = run_loop(_work(loaded, target, how, settings, quarantine, drain))
    raise click.exceptions.Exit(code)


async def _work(
    app: Windlass[Any], target: str, how: str, settings: Settings, quarantine: bool, drain: bool
) -> int:
    from windlass.spawn import VARIABLE
    from windlass.worker.signals import handle_signals

    supervised = VARIABLE in os.environ  # then the parent does the talking
    one = make_worker(app, target, settings, quarantine=quarantine, drain=drain)
    governed = Forcible(one, talk=not supervised)
    restore = handle_signals(governed)
    try:
        async with app:
            if not supervised:
                say(f"Working for {target}{how}: {_tasks(app)}.")
            await one.run()
    finally:
        restore()
    return governed.exit_code


async def _supervise(
    app: Windlass[Any], target: str, how: str, settings: Settings, drain: bool
) -> int:
    from windlass.worker.signals import handle_signals

    async with app:
        parent = make_supervisor(app, target, settings, *(["--drain"] if drain else []))
        governed = Forcible(parent)
        restore = handle_signals(governed)
        try:
            say(f"{settings.workers} processes work for {target}{how}: {_tasks(app)}.")
            code = await parent.run()
        finally:
            restore()
    return code or governed.exit_code


def _tasks(app: Windlass[Any]) -> str:
    return ", ".join(task.type for task in app.registry.tasks()) or "no tasks"
