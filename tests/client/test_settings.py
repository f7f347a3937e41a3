"""Settings: where each comes from, and what is said of one that cannot be."""

from datetime import timedelta
from pathlib import Path

import pytest

from windlass import ConfigError
from windlass.config import Settings


def test_defaults_stand_alone(tmp_path: Path) -> None:
    settings = Settings.load(environ={}, directory=tmp_path)

    assert (settings.url, settings.port, settings.concurrency) == ("sqlite:///jobs.db", 8080, 100)
    assert set(settings.origins.values()) == {"default"}
    assert settings.warnings == ()


def test_an_argument_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text("port = 1\ncapacity = 1\nthreads = 1\n")
    environ = {"WINDLASS_PORT": "2", "WINDLASS_CAPACITY": "2"}

    settings = Settings.load(environ=environ, directory=tmp_path, port=3, capacity=None)

    assert (settings.port, settings.capacity, settings.threads) == (3, 2, 1)
    assert settings.origins["port"] == "argument"
    assert settings.origins["capacity"] == "WINDLASS_CAPACITY"
    assert settings.origins["threads"] == "windlass.toml"
    assert settings.origins["host"] == "default"


def test_customary_variables_are_honoured_after_our_own(tmp_path: Path) -> None:
    environ = {"PORT": "3000", "WORKER_COUNT": "4", "JOB_QUEUE_CAPACITY": "50"}

    settings = Settings.load(environ=environ, directory=tmp_path)
    overruled = Settings.load(environ=environ | {"WINDLASS_PORT": "1"}, directory=tmp_path)

    assert (settings.port, settings.capacity) == (3000, 50)
    assert (settings.concurrency, settings.threads) == (4, 4)
    assert overruled.port == 1


def test_the_tool_table_of_pyproject_is_read_and_its_like_is_no_harm(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[tool.windlass]\nqueues = ["mail", "default"]\ngrace = "1m"\n')
    settings = Settings.load(environ={}, directory=tmp_path)
    pyproject.write_text("this is [ not TOML")

    assert settings.queues == frozenset({"mail", "default"})
    assert settings.grace == timedelta(minutes=1)
    assert Settings.load(environ={}, directory=tmp_path).queues is None


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert Settings.load(environ={"PORT": ""}, directory=tmp_path).port == 8080


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WINDLASS_PORT", "http", "'port' (from WINDLASS_PORT) is a whole number from 0 to 65535"),
        ("PORT", "70000", "'port' (from PORT) is a whole number from 0 to 65535, not '70000'"),
        ("WORKER_COUNT", "0", "'concurrency' (from WORKER_COUNT) is a whole number from 1"),
        ("JOB_QUEUE_CAPACITY", "-5", "'capacity' (from JOB_QUEUE_CAPACITY) is a whole number"),
        ("WINDLASS_GRACE", "later", "'grace' (from WINDLASS_GRACE) is not as it should be: "),
        ("WINDLASS_GRACE", "2d", "is a duration of at most 1 day"),
        ("WINDLASS_DURABILITY", "high", "is 'full' or 'normal', not 'high'"),
        ("WINDLASS_QUEUES", "a b", "A queue's name is 1 to 64 letters"),
        ("WINDLASS_LOG_LEVEL", "loud", "is 'debug' or 'info' or 'warning' or 'error', not 'loud'"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_origin(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.load(environ={variable: value}, directory=tmp_path)

    assert says in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text("port = = 1")

    with pytest.raises(ConfigError, match=r"windlass\.toml cannot be read: .*line 1"):
        Settings.load(environ={}, directory=tmp_path)


def test_what_is_not_known_is_told_with_what_may_have_been_meant(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text("prot = 1\n")

    settings = Settings.load(environ={"WINDLASS_CONCURENCY": "3", "OTHER": "x"}, directory=tmp_path)

    assert settings.warnings == (
        (
            "The environment variable WINDLASS_CONCURENCY is not known and does nothing "
            "(did you mean 'WINDLASS_CONCURRENCY'?)."
        ),
        "The key 'prot' in windlass.toml is not known and does nothing (did you mean 'port'?).",
    )


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    environ = {"WINDLASS_TOKEN": "s3cret"}

    settings = Settings.load(environ=environ, directory=tmp_path)

    assert settings.token == "s3cret"
    assert settings.shown()["token"] == ("(set)", "WINDLASS_TOKEN")
    assert "s3cret" not in repr(settings)


def test_the_worker_is_made_as_set(tmp_path: Path) -> None:
    environ = {"WINDLASS_CONCURRENCY": "7", "WINDLASS_PROCESSES": "1", "WINDLASS_QUEUES": "a,b"}

    options = Settings.load(environ=environ, directory=tmp_path).worker_options()

    assert (options.concurrency, options.threads, options.processes) == (7, 16, 1)
    assert options.queues == frozenset({"a", "b"})
