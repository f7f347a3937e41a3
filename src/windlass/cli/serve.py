"""``windlass serve``: the HTTP API and a worker, in one process and one event loop.

Stopping goes in this order, within the grace: changes are refused and ``/readyz`` turns red, the
worker goes down its ladder (quiet, grace, cancel, flush, leave), the HTTP server ends its
connections, the store is closed. What is read is answered until the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.exits import CONFIG, Told
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
    from uvicorn import Server

    from windlass.app import Windlass
    from windlass.config import Settings
    from windlass.server import ServerApp
    from windlass.worker import Worker
    from windlass.worker.signals import Governed
    from windlass.worker.supervisor import Supervisor

__all__ = ["serve"]

_BACKLOG = 2048
_LAST_ANSWERS = 3
"""Seconds in which open connections may take their last answers."""


@click.command
@app_argument
@click.option(
    "--host", envvar="WINDLASS_HOST", help="Listen on this address.  [default: 127.0.0.1]"
)
@click.option("--port", envvar=["WINDLASS_PORT", "PORT"], type=click.IntRange(0, 65535),
              help="Listen on this port; 0: any free one.  [default: 8080]")  # fmt: skip
@click.option(
    "--token", envvar="WINDLASS_TOKEN", help="What clients must send; needed off loopback."
)
@click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="NAME",
              help="A name of this server, beside localhost; may be repeated.")  # fmt: skip
@click.option("--workers", envvar="WINDLASS_WORKERS", type=click.IntRange(1, 256),
              help="More than 1: so many worker processes beside this one.")  # fmt: skip
@work_options
@click.option("--no-worker", is_flag=True, help="Only the API: workers run elsewhere.")
def serve(app: str | None, url: str | None, no_worker: bool, reload: bool, **given: Any) -> None:
    """Run the HTTP API and a worker, in one process.

    MODULE:APP names the app, as package.module:app or file.py:app; without it, WINDLASS_APP, `app`
    under [tool.windlass] in pyproject.toml, or the example of a checkout counts.

    \b
    windlass serve shop.jobs:app
    windlass serve --port 9000 --reload
    windlass serve --host 0.0.0.0 --token "$SECRET" --workers 4
    """
    from windlass.config import Settings, load_app

    if reload:
        from windlass.cli.reload import run_reloading

        raise click.exceptions.Exit(run_reloading("serve", sys.argv[1:]))
    given["allowed_hosts"] = given["allowed_hosts"] or None
    settings = Settings.load(app=app, url=url, **given)
    target, how = find_app(app)
    loaded = load_app(target)
    set_up_logs(settings, loaded)
    if url is not None:
        use_url(loaded, url)
    with contextlib.closing(_listen(settings)) as listener:
        code = run_loop(_serve(loaded, settings, target, how, listener, no_worker))
    raise click.exceptions.Exit(code)


async def _serve(
    app: Windlass[Any],
    settings: Settings,
    target: str,
    how: str,
    listener: socket.socket,
    no_worker: bool,
) -> int:
    from windlass.worker.signals import handle_signals

    serving = _Serving(app, settings, target, listener, no_worker=no_worker)
    governed = Forcible(serving)
    restore = handle_signals(governed)
    try:
        say(f"The app is {target}{how}.")
        await serving.run()
    finally:
        restore()
    return governed.exit_code


def _listen(settings: Settings) -> socket.socket:
    """The socket, bound before anything else starts: a busy port must not cost a started worker."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # Who connects from now on waits in line until the server takes it.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        if error.errno == 98 or "in use" in str(error):
            raise Told(
                f"{where} is in use by another program: stop it, or choose another --port.", CONFIG
            ) from None
        raise Told(f"Cannot listen on {where}: {error.strerror or error}.", CONFIG) from None
    return listener


class _Serving:
    """One run of ``serve``, from the socket to the exit code. Signals govern it."""

    def __init__(
        self,
        app: Windlass[Any],
        settings: Settings,
        target: str,
        listener: socket.socket,
        *,
        no_worker: bool,
    ) -> None:
        self.app, self.settings, self.listener = app, settings, listener
        self.worker: Worker | None = None
        self.supervisor: Supervisor | None = None
        if settings.workers > 1 and not no_worker:
            self.supervisor = make_supervisor(app, target, settings)
        elif not no_worker:
            self.worker = make_worker(app, target, settings)
        self._supervising = False
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop, or until a part of it ends by itself."""
        async with self.app:
            api = self._make_api()
            say(self._greeting())
            http = _http_server(api)
            serving = asyncio.create_task(http.serve(sockets=[self.listener]))
            working = asyncio.create_task(self._work())
            asked = asyncio.create_task(self._asked.wait())
            try:
                await asyncio.wait({serving, working, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                api.drain()
                if not self._asked.is_set():
                    self._pass_on_stop(timedelta(0))
                await asyncio.wait([working])
                http.should_exit = True
                await asyncio.wait([serving])
            for part in (working, serving):
                part.result()  # what ended it, if it was not us

    async def _work(self) -> None:
        if self.worker is not None:
            await self.worker.run()
        elif self.supervisor is None:
            await self._asked.wait()
        elif not self._asked.is_set():
            self._supervising = True
            await self.supervisor.run()

    def _make_api(self) -> ServerApp:
        from windlass.metrics import Metrics
        from windlass.server import create_app

        return create_app(
            self.app,
            token=self.settings.token,
            bind=self.settings.host,
            allowed_hosts=self.settings.allowed_hosts,
            readiness=self._not_ready,
            metrics=Metrics(self.app.events, self.app.registry.types),
        )

    def _not_ready(self) -> list[str]:
        if self.worker is None or self.worker.ready:
            return []
        return [f"The worker of this process is {self.worker.state}."]

    # -------------------------------------------------------------- governed by signals

    def stop(self, grace: timedelta | None = None) -> None:
        """Begin to stop. The worker first, the rest when it has ended."""
        self._pass_on_stop(grace)
        self._loop.call_soon_threadsafe(self._asked.set)

    def quiet(self) -> None:
        """Claim nothing more; the API goes on."""
        for part in self._parts():
            part.quiet()

    def resume(self) -> None:
        """Claim again."""
        for part in self._parts():
            part.resume()

    def status(self) -> str:
        """One line for people."""
        return "; ".join(part.status() for part in self._parts()) or "serving, without a worker"

    def _pass_on_stop(self, grace: timedelta | None) -> None:
        for part in self._parts():
            part.stop(grace)

    def _parts(self) -> Iterator[Governed]:
        if self.worker is not None:
            yield self.worker
        if self.supervisor is not None and self._supervising:
            yield self.supervisor

    def _greeting(self) -> str:
        """What is served, and where."""
        host, port = self.listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        tasks = ", ".join(task.type for task in self.app.registry.tasks()) or "no tasks"
        if self.worker is not None:
            work = "with a worker in this process"
        elif self.supervisor is not None:
            work = f"with {self.settings.workers} worker processes"
        else:
            work = "without a worker"
        return (
            f"Serving {tasks} {work}.\nListening on http://{shown}:{port} (process {os.getpid()})"
        )


def _http_server(api: ServerApp) -> Server:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are ours: the worker has to stop first."""
            yield

    return Server(
        uvicorn.Config(
            api,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            limit_concurrency=2000,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_LAST_ANSWERS,
        )
    )
