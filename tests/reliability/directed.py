"""Scenes in which one thing goes wrong at exactly the wrong moment, with real processes.

Each plays the same way every time, with a healthy build and with one that has a planted bug: nothing in
them waits for luck. They answer what happened, for a check to judge.
"""

from __future__ import annotations

from pathlib import Path

from tests.reliability import journal
from tests.reliability.checker import History
from tests.reliability.ledger import Kind
from tests.reliability.scene import Child, Scene

__all__ = ["clock_step", "hasty_answer", "innocent_bystander", "zombie", "zombie_after_the_end"]


def zombie(folder: Path, plant: str = "") -> History:
    """A worker sleeps from the end of a run to its Ack. Meanwhile the job is handed out again, and
    runs elsewhere when the Ack arrives."""
    with Scene(folder) as scene:
        gate = folder / "gate"
        victim, healthy = _zombie(scene, gate, plant)
        scene.until_started(1, worker=healthy.label)

        _late_ack(scene, victim)
        gate.touch()

        return _wind_up(scene, healthy, victim)


def zombie_after_the_end(folder: Path, plant: str = "") -> History:
    """The same, and the Ack arrives after the job was completed elsewhere."""
    with Scene(folder) as scene:
        gate = folder / "gate"
        victim, healthy = _zombie(scene, gate, plant)
        gate.touch()
        scene.until_final()

        _late_ack(scene, victim)

        return _wind_up(scene, healthy, victim)


def _zombie(scene: Scene, gate: Path, plant: str) -> tuple[Child, Child]:
    scene.enqueue("gated", gate=str(gate), first=False)
    victim = scene.worker("victim", plant=plant, freeze_at_ack=True)
    victim.froze()
    return victim, scene.worker("healthy", plant=plant)


def _late_ack(scene: Scene, victim: Child) -> None:
    """Let the Ack come, and wait until it was answered, rightly or wrongly."""
    written = len(journal.changes(scene.store))
    victim.thaw()
    scene.until(
        "the late Ack is answered",
        lambda: bool(scene.facts(Kind.STALE)) or len(journal.changes(scene.store)) > written,
    )


def _wind_up(scene: Scene, *workers: Child) -> History:
    scene.until_final()
    for worker in workers:
        assert worker.stop() == 0, worker.said()
    return scene.history()


def hasty_answer(folder: Path, plant: str = "") -> History:
    """A producer is killed as soon as it was told that its job is accepted."""
    with Scene(folder) as scene:
        producer = scene.producer(count=1, plant=plant)
        scene.until("the job is accepted", lambda: bool(scene.facts(Kind.ACCEPTED)))
        producer.kill()

        healthy = scene.worker("healthy")
        scene.until_working(healthy)

        return _wind_up(scene, healthy)


def clock_step(folder: Path, plant: str = "") -> History:
    """The clock is set forward by an hour while a healthy worker runs a job between two beats."""
    with Scene(folder) as scene:
        clock, gate = folder / "clock", folder / "gate"
        clock.write_text("0")
        scene.enqueue("gated", gate=str(gate), first=True)
        holder = scene.worker("holder", clock=str(clock), lease=6.0)
        scene.until_started(1)
        observer = scene.worker("observer", clock=str(clock), lease=1.0, plant=plant)
        scene.until_working(holder, observer)

        # Right after a beat of the holder: its next is 1.5 s away, the observer's next looks 0.2 s.
        before = _until_changed(scene, _holder(scene))
        _write(clock, "3600")
        _until_changed(scene, before)
        gate.touch()

        return _wind_up(scene, observer, holder)


def _holder(scene: Scene) -> tuple[int, int]:
    """Of the worker that registered first: its beat, and whether it is dead."""
    with journal.connect(scene.store) as db:
        beat, dead = db.execute("SELECT beat, dead FROM workers ORDER BY number").fetchone()
        return beat, dead


def _until_changed(scene: Scene, before: tuple[int, int]) -> tuple[int, int]:
    """Wait until the holder beats, or is declared dead; how it is then."""
    scene.until("the holder beats or dies", lambda: _holder(scene) != before)
    return _holder(scene)


def _write(path: Path, text: str) -> None:
    """At one moment: readers see the old text or the new one."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def innocent_bystander(folder: Path, plant: str = "") -> History:
    """A good job is in flight when two workers are killed, and again when its quarantine is."""
    with Scene(folder) as scene:
        gate = folder / "gate"
        scene.enqueue("gated", gate=str(gate), first=True)
        for start, name in enumerate(("first", "second"), 1):
            worker = scene.worker(name, plant=plant)
            scene.until_started(start)
            worker.kill()
        third = scene.worker("third", plant=plant)
        scene.until_started(3)
        quarantine = scene.facts(Kind.STARTED)[-1].worker
        assert quarantine != third.label, "a suspect ran outside of quarantine"
        scene.kill(quarantine)
        gate.touch()

        return _wind_up(scene, third)
