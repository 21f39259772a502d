"""The scene's own check can fail: what it must not let pass."""

import pytest

from tests.programs.foreign import Site
from tests.programs.scene import Scene


@pytest.fixture
def ended(scene: Scene):
    """Call it when the programs are done: the check, which the test expects to fail, and nothing left for the end."""

    def check(engine: str = scene.engine) -> None:
        scene.stop()
        try:
            for agent in scene.agents:
                agent.check(engine)
        finally:
            scene.close()
            scene.agents.clear()

    return check


@pytest.fixture
def fetched(scene: Scene):
    """curl has fetched from a TLS server, and found nobody at another port."""
    dead = scene.port()
    with Site(scene, {"/file": b"data"}) as site:
        urls = [f"http://127.0.0.1:{port}/file" for port in (site.port, dead)]
        scene.use(["curl", "-sS", *urls], site.port, dead, status=7)


def test_a_program_without_a_protected_connection_fails(scene: Scene, ended):
    scene.use(["true"], scene.port())
    with pytest.raises(AssertionError, match="no connection was protected"):
        ended()


def test_a_connection_that_failed_fails(fetched, ended):
    with pytest.raises(AssertionError, match="TCP connect"):
        ended()


def test_a_failure_that_the_scenario_expects_passes(scene: Scene, fetched):
    scene.expect("tcp")


def test_another_engine_fails(scene: Scene, fetched, ended):
    scene.expect("tcp")
    with pytest.raises(AssertionError, match="engine"):
        ended("nic")


def test_another_exit_status_fails(scene: Scene):
    with pytest.raises(AssertionError, match="gave 1"):
        scene.use_plain(["false"])
