"""Finding the app that ``package.module:app`` or ``file.py:app`` names.

Importing is running somebody's code, so anything can go wrong; whatever does becomes one sentence
that names the line, since the person at the command line made the mistake and wants to find it.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from windlass.errors import ConfigError
from windlass.options import did_you_mean

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = ["is_loading", "load_app", "target_of"]

_loading = 0
_OURS = os.path.dirname(__file__) + os.sep


def load_app(target: str) -> Windlass[Any]:
    """The app that *target* names: ``package.module:app`` or ``file.py:app``.

    Without ``:app`` it is the only app that the module defines. The current directory is searched
    first, as ``python`` does. Raises :class:`~windlass.errors.ConfigError`, one sentence, for
    whatever is wrong, errors of the imported code included.
    """
    place, _, attribute = target.partition(":")
    if not place:
        raise ConfigError(
            f"{target!r} names no app: write it like 'package.module:app' or 'file.py:app'."
        )
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    is_file = place.endswith(".py") or os.sep in place
    with _while_loading():
        module = _import_file(Path(place)) if is_file else _import_module(place)
    app = _named(module, place, attribute) if attribute else _only(module, place)
    for task in app.registry.tasks():
        # Better here than at each job: the module is whole, and what its tasks name must be there.
        task.signature.resolve()
    return app


def is_loading() -> bool:
    """Whether :func:`load_app` imports a module at this moment."""
    return _loading > 0


def target_of(app: object) -> str | None:
    """What to tell :func:`load_app` in another process to find *app* there; None: it is nowhere.

    A module that is run as a program is named by its file.
    """
    modules = sorted(sys.modules.items(), key=lambda item: item[0] == "__main__")
    for name, module in modules:
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is not app:
                continue
            if name != "__main__":
                return f"{name}:{attribute}"
            if file := getattr(module, "__file__", None):
                return f"{os.path.abspath(file)}:{attribute}"
    return None


@contextmanager
def _while_loading() -> Iterator[None]:
    global _loading
    _loading += 1
    try:
        yield
    finally:
        _loading -= 1


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.")
    # Inside packages the module has a longer name, by which its relative imports are found.
    names, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = ".".join(names)
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) != str(path):
        raise ConfigError(f"{path} hides behind another module named {name!r}: rename the file.")
    return _import_module(name)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"There is no module {name!r} in {os.getcwd()} or on Python's path"
                f"{did_you_mean(name, _neighbours())}."
            ) from None
        raise ConfigError(_told(name, error)) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_told(name, error)) from None


def _neighbours() -> list[str]:
    """Names that could be imported from the current directory."""
    return [path.stem for path in Path().iterdir() if path.suffix == ".py" or path.is_dir()]


def _told(name: str, error: BaseException) -> str:
    """One sentence about an import that failed."""
    kind, text = type(error).__name__, " ".join(str(error).split()) or "no message"
    if isinstance(error, ConfigError):
        what = text.rstrip(".")
    elif isinstance(error, SyntaxError):
        what = f"{kind}: {error.msg}"
    else:
        what = f"{kind}: {text.rstrip('.')}"
    return f"The module {name!r} does not import: {what}{_line_at_fault(error)}."


def _line_at_fault(error: BaseException) -> str:
    """Where the fault lies, in the user's code if it passed there."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        file, number, line = error.filename, error.lineno, error.text or ""
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(("<frozen", _OURS))
            and f"{os.sep}importlib{os.sep}" not in frame.filename
        ]
        if not frames:
            return ""
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        last = (own or frames)[-1]
        file, number = last.filename, last.lineno or 0
        line = linecache.getline(file, number)
    shown = os.path.relpath(file) if file.startswith(os.getcwd()) else file
    return f" ({shown}, line {number}: {line.strip():.120})"


def _named(module: ModuleType, place: str, attribute: str) -> Windlass[Any]:
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            apps = list(_apps(module))
            raise ConfigError(
                f"{place!r} has no {attribute!r}"
                + (
                    f"; its app is {apps[0]!r}."
                    if len(apps) == 1
                    else did_you_mean(name, apps) + "."
                )
            )
        found = getattr(found, name)
    if not _is_app(found):
        raise ConfigError(f"'{place}:{attribute}' is a {type(found).__name__}, not a Windlass app.")
    app: Windlass[Any] = found
    return app


def _only(module: ModuleType, place: str) -> Windlass[Any]:
    apps = _apps(module)
    match len({id(app) for app in apps.values()}):
        case 1:
            return next(iter(apps.values()))
        case 0:
            raise ConfigError(f"{place!r} defines no app: add `app = Windlass()` to it.")
        case _:
            raise ConfigError(
                f"{place!r} defines several apps ({', '.join(apps)}): name one, "
                f"as in '{place}:{next(iter(apps))}'."
            )


def _apps(module: ModuleType) -> dict[str, Windlass[Any]]:
    return {name: value for name, value in vars(module).items() if _is_app(value)}


def _is_app(value: object) -> bool:
    from windlass.app import Windlass

    return isinstance(value, Windlass)
