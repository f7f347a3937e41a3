"""Finding the app that a command line names, and the sentence when it cannot be found."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windlass import ConfigError
from windlass.config import load_app
from windlass.load import target_of

ONE = 'from windlass import Windlass\napp = Windlass("memory:")\nalso = app\n'
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file into the current directory of the test; what it imports is forgotten after."""
    before = dict(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.mark.parametrize(
    "target", ["shop_a.jobs:app", "shop_a.jobs", "shop_a/jobs.py:app", "shop_a/jobs.py"]
)
def test_an_app_is_found_by_module_or_file_with_or_without_its_name(
    write: Write, target: str
) -> None:
    write("shop_a/__init__.py", "")
    write("shop_a/other.py", "X = 1\n")
    write("shop_a/jobs.py", "from .other import X\n" + ONE)

    app = load_app(target)

    assert app is sys.modules["shop_a.jobs"].app


def test_an_app_is_found_inside_an_object(write: Write) -> None:
    write("shop_b.py", ONE + "class site:\n    jobs = app\n")

    assert load_app("shop_b:site.jobs") is load_app("shop_b")


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (ONE, "", "'' names no app: write it like 'package.module:app'"),
        (ONE, "shop_d:app", r"There is no module 'shop_d' in .* \(did you mean 'shop_c'\?\)"),
        (ONE, "shop_c.jobs:app", "There is no module|does not import: ModuleNotFoundError"),
        (ONE, "nowhere.py:app", "There is no file .*nowhere.py"),
        (ONE, "shop_c:ap", r"'shop_c' has no 'ap' \(did you mean 'app'\?\)"),
        (ONE, "shop_c:Windlass", "'shop_c:Windlass' is a type, not a Windlass app"),
        ("X = 1\n", "shop_c", "'shop_c' defines no app: add `app = Windlass"),
        (
            ONE + 'two = Windlass("memory:")\n',
            "shop_c",
            r"defines several apps \(app, also, two\): name one, as in 'shop_c:app'",
        ),
        (
            "X = 1\nimport nowhere_at_all\n",
            "shop_c",
            (
                r"ModuleNotFoundError: No module named 'nowhere_at_all' "
                r"\(shop_c.py, line 2: import nowhere_at_all\)"
            ),
        ),
        (
            "X = 1\n\ny = 1 / 0\n",
            "shop_c",
            r"ZeroDivisionError: .* \(shop_c.py, line 3: y = 1 / 0\)",
        ),
        ("def f(:\n", "shop_c", r"SyntaxError: .* \(shop_c.py, line 1: def f\(:\)"),
        ("import sys\nsys.exit(3)\n", "shop_c", r"SystemExit: 3 \(shop_c.py, line 2"),
        ("raise ValueError\n", "shop_c", "ValueError: no message"),
        (
            ONE + "@app.task(priority=1000)\ndef f() -> None: ...\n",
            "shop_c",
            (
                r"does not import: Task 'f': priority is a whole number from -100 to 100, not 1000 "
                r"\(shop_c.py, line 4: @app.task\(priority=1000\)\)"
            ),
        ),
        (
            ONE + "@app.task\ndef f() -> None: ...\n@app.task(name='f')\ndef g() -> None: ...\n",
            "shop_c",
            r"Two tasks are called 'f': .*shop_c.py:4.* and .*shop_c.py:6",
        ),
        (
            ONE + "@app.task\ndef f(to: 'Nobody') -> None: ...\n",
            "shop_c",
            "annotation of parameter 'to' of task f cannot be resolved: name 'Nobody' is not",
        ),
        (ONE + "app.run_worker()\n", "shop_c", "put it under `if __name__ == '__main__':`"),
        (
            'from windlass import Windlass\napp = Windlass("mongo://x")\n',
            "shop_c",
            r"There is no store 'mongo'.*line 2: app = Windlass\(\"mongo://x\"\)",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence_with_its_line(
    write: Write, text: str, target: str, says: str
) -> None:
    write("shop_c.py", text)

    with pytest.raises(ConfigError, match=says) as refused:
        load_app(target)

    assert "\n" not in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_file_that_hides_behind_another_module_is_refused(write: Write) -> None:
    write("queue.py", ONE)

    with pytest.raises(ConfigError, match=r"hides behind another module named 'queue': rename"):
        load_app("queue.py:app")


def test_an_app_is_found_again_by_what_is_told_of_its_place(write: Write) -> None:
    write("shop_e.py", ONE)
    app = load_app("shop_e.py")

    assert target_of(app) == "shop_e:app"
    assert target_of(object()) is None
