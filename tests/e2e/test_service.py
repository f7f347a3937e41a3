"""The job service of the README, from outside: by its own curl lines, by signals, and by murder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.e2e.service import WINDLASS, Service, ask, curl, environment, home

HEALTH = "curl http://localhost:8080/health"
CREATE = """
curl -X POST http://localhost:8080/jobs \\
  -H "Content-Type: application/json" \\
  -d '{
    "type": "email",
    "payload": {"to": "user@example.com"}
  }'
"""
LIST = "curl http://localhost:8080/jobs"


def at(service: Service, line: str) -> str:
    return line.replace(":8080", f":{service.port}")


def test_the_lines_of_the_readme_work_as_they_stand(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        assert curl(at(service, LIST)) == (200, [])
        health, body = curl(at(service, HEALTH))
        assert (health, body["status"]) == (200, "ok")

        created, job = curl(at(service, CREATE))

        assert created == 201
        assert (job["type"], job["status"]) == ("email", "pending")
        seen = service.wait_for(job["id"], "completed")
        listed, jobs = curl(at(service, LIST))
        assert listed == 200
        assert [(each["id"], each["status"]) for each in jobs] == [(job["id"], "completed")]
        assert list(dict.fromkeys(["pending", *seen])) == ["pending", "processing", "completed"]
        assert len(list((tmp_path / "outbox" / "new").iterdir())) == 1


def test_the_readme_of_the_service_has_these_lines() -> None:
    readme = (ROOT / "examples/job_service/README.md").read_text(encoding="utf-8")

    flat = re.sub(r"\s+", " ", readme)

    for line in (HEALTH, CREATE, LIST):
        assert re.sub(r"\s+", " ", line.strip()) in flat


def test_with_no_app_named_it_says_what_it_runs(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        assert "example" in service.said()
        assert f":{service.port}" in service.said()


def test_every_task_of_the_example_comes_to_an_end(tmp_path: Path) -> None:
    with Service(tmp_path, JOB_SERVICE_PACE="0s") as service:
        payloads: dict[str, dict[str, object]] = {
            "email": {"to": "user@example.com"},
            "thumbnail": {},
            "report": {"words": 20_000},
            "flaky": {"probability": 0},
            "slow": {"seconds": 0.1},
        }
        ids = [service.enqueue(task, **payload)["id"] for task, payload in payloads.items()]
        own = service.enqueue("fetch", url=f"{service.url}/health")["id"]

        for id_ in ids:
            service.wait_for(id_, "completed")
        # The service is inside this network, where strangers' URLs shall not lead.
        service.wait_for(own, "failed")


def test_sigterm_ends_it_cleanly_and_after_a_restart_all_jobs_are_there(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        done = service.enqueue("email", to="a@example.com")["id"]
        service.wait_for(done, "completed")
        later = service.post(
            "/jobs", {"type": "email", "payload": {"to": "b@example.com"}, "delay": "1h"}
        )[1]["id"]
        running = service.enqueue("email", to="c@example.com")["id"]

        exit_code = service.stop()

        assert exit_code == 0, service.said()
        assert "Traceback" not in service.said()

    with Service(tmp_path) as service:
        statuses = service.statuses()
        assert statuses[done] == "completed"
        assert statuses[later] == "scheduled"
        assert set(statuses) == {done, later, running}
        service.wait_for(running, "completed")


def test_a_job_that_outlasts_the_grace_is_handed_back_and_costs_no_attempt(tmp_path: Path) -> None:
    with Service(tmp_path, JOB_SERVICE_PACE="0s", WINDLASS_GRACE="0.2s") as service:
        job = service.enqueue("slow", seconds=600)["id"]
        service.wait_for(job, "processing")

        began = time.monotonic()
        exit_code = service.stop()

        assert exit_code == 0, service.said()
        assert time.monotonic() - began < 10

    with Service(tmp_path, JOB_SERVICE_PACE="0s") as service:
        service.wait_for(job, "processing")
        assert service.get(f"/jobs/{job}")["attempt"] == 1


@pytest.mark.timeout(120)
def test_killed_with_jobs_in_flight_it_loses_nothing(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        jobs = [service.enqueue("email", to=f"user{n}@example.com")["id"] for n in range(12)]
        jobs += [service.enqueue("report", words=2_000_000)["id"] for _ in range(2)]
        service.wait_for(jobs[0], "processing")

        service.kill()

    with Service(tmp_path) as service:
        assert set(service.statuses()) == set(jobs)
        end = time.monotonic() + 60
        while any(status != "completed" for status in service.statuses().values()):
            assert time.monotonic() < end, service.statuses()
            time.sleep(0.2)
        assert len(list((tmp_path / "outbox" / "new").iterdir())) == 12


def test_a_running_job_is_cancelled(tmp_path: Path) -> None:
    with Service(tmp_path, JOB_SERVICE_PACE="0s") as service:
        job = service.enqueue("slow", seconds=600)["id"]
        service.wait_for(job, "processing")

        service.post(f"/jobs/{job}/cancel")

        service.wait_for(job, "cancelled", within=5)


def test_a_failing_job_is_retried_and_ends_as_a_dead_letter(tmp_path: Path) -> None:
    with Service(tmp_path, JOB_SERVICE_PACE="0s") as service:
        job = service.post(
            "/jobs", {"type": "flaky", "payload": {"probability": 1}, "max_attempts": 2}
        )[1]["id"]

        service.wait_for(job, "failed", within=10)

        assert [error["attempt"] for error in service.get(f"/jobs/{job}")["errors"]] == [1, 2]


def test_a_full_queue_is_answered_429(tmp_path: Path) -> None:
    with Service(tmp_path, JOB_QUEUE_CAPACITY="2") as service:
        assert service.post("/queues/default/pause")[0] == 200
        for _ in range(2):
            service.enqueue("email", to="user@example.com")

        status, problem = service.post(
            "/jobs", {"type": "email", "payload": {"to": "user@example.com"}}
        )

        assert status == 429
        assert "full" in problem["detail"]


def test_a_busy_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        second = subprocess.run(
            [WINDLASS, "serve"], cwd=ROOT, capture_output=True, text=True, timeout=30,
            env=environment(**home(tmp_path), PORT=str(service.port)),
        )  # fmt: skip

        assert second.returncode == 3
        assert str(service.port) in second.stderr
        assert "Traceback" not in second.stderr
        assert ask(f"{service.url}/readyz")[0] == 200


def test_with_one_worker_the_next_job_is_seen_pending(tmp_path: Path) -> None:
    with Service(tmp_path, WORKER_COUNT="1") as service:
        first = service.enqueue("email", to="first@example.com")["id"]
        second = service.enqueue("email", to="second@example.com")["id"]

        seen = service.wait_for(second, "completed")

        assert seen == ["pending", "processing", "completed"]
        assert service.statuses()[first] == "completed"


def test_under_a_supervisor_a_killed_workers_job_goes_on_within_two_seconds(tmp_path: Path) -> None:
    with Service(tmp_path, "--workers", "2", JOB_SERVICE_PACE="0s") as service:
        workers = {each["id"]: each["pid"] for each in service.wait_for_workers(2)}
        job = service.enqueue("slow", seconds=600)["id"]
        service.wait_for(job, "processing")
        holder = service.get(f"/jobs/{job}")["worker"]

        os.kill(workers[holder], signal.SIGKILL)

        began = time.monotonic()
        service.wait_for(job, "scheduled", within=2)
        service.wait_for(job, "processing", within=5)
        assert service.get(f"/jobs/{job}")["worker"] != holder
        assert service.get(f"/jobs/{job}")["attempt"] == 1, "a worker's death costs no attempt"
        assert time.monotonic() - began < 5
        replaced = {each["pid"] for each in service.wait_for_workers(2)}
        assert workers[holder] not in replaced
        service.post(f"/jobs/{job}/cancel")
        service.wait_for(job, "cancelled", within=5)
        assert service.stop() == 0, service.said()


def test_worker_processes_beside_an_api_without_one(tmp_path: Path) -> None:
    with Service(tmp_path, "--no-worker", JOB_SERVICE_PACE="0s") as api:
        job = api.enqueue("email", to="user@example.com")["id"]
        assert api.get("/workers") == []

        worker = subprocess.run(
            [WINDLASS, "worker", "--drain"], cwd=ROOT, capture_output=True, text=True, timeout=30,
            env=environment(**home(tmp_path), JOB_SERVICE_PACE="0s"),
        )  # fmt: skip

        assert worker.returncode == 0, worker.stderr
        assert api.get(f"/jobs/{job}")["status"] == "completed"
