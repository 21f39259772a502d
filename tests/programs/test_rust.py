"""A Rust program on tokio, from Debian's packages alone: cargo takes the crates from /usr/share/cargo/registry."""

import subprocess
from pathlib import Path

import pytest

from tests.programs.echo import SOURCES, serves_foreign_clients, talk_to_each_other, uses_a_foreign_server
from tests.programs.results import debian_version
from tests.programs.scene import MEASURE, Scene

pytestmark = pytest.mark.timeout(600)  # for when the crates are compiled first

BUILD = Path(__file__).parents[2] / "build" / "rust"


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of the compiled programs. `make test` has compiled them: that takes minutes in user-mode Linux."""
    profile = ["--release"] if MEASURE else []
    subprocess.run([str(SOURCES / "rust" / "build.sh"), str(BUILD), *profile], check=True)
    return BUILD / "target" / ("release" if MEASURE else "debug")


def test_a_server_answers_foreign_tls_clients(scene: Scene, built: Path):
    serves_foreign_clients(scene, [str(built / "server")])


def test_a_client_talks_to_a_foreign_tls_server(scene: Scene, built: Path):
    uses_a_foreign_server(scene, [str(built / "client")])


@pytest.mark.measured
def test_client_and_server_are_both_covered(scene: Scene, built: Path):
    found = "It registers on a copy of the epoll descriptor that it waits on: events were lost, until the shim stopped "
    scene.row("Rust, tokio", debian_version("librust-tokio-dev"), found + "telling sets by their descriptors.")
    talk_to_each_other(scene, [str(built / "server")], [str(built / "client")])
