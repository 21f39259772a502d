"""A Rust program on tokio, from Debian's packages alone: cargo takes the crates from /usr/share/cargo/registry."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.programs.echo import SOURCES, serves_foreign_clients, talk_to_each_other, uses_a_foreign_server
from tests.programs.results import debian_version
from tests.programs.scene import MEASURE, Scene

pytestmark = pytest.mark.timeout(600)  # the crates are compiled first

DEBIAN = (
    '--config=source.crates-io.replace-with="debian"',
    '--config=source.debian.directory="/usr/share/cargo/registry"',
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled programs. They are built from a copy: cargo leaves a Cargo.lock beside the sources."""
    project = tmp_path_factory.mktemp("rust")
    for source in (SOURCES / "rust").iterdir():
        (project / source.name).write_bytes(source.read_bytes())
    environment = {**os.environ, "RUSTC": "/usr/bin/rustc", "CARGO_HOME": str(project / "home")}
    profile = ["--release"] if MEASURE else []
    command = ["/usr/bin/cargo", "build", "--offline", "--quiet", *profile, *DEBIAN]
    subprocess.run(command, cwd=project, env=environment, check=True)
    return project / "target" / ("release" if MEASURE else "debug")


def test_a_server_answers_foreign_tls_clients(scene: Scene, built: Path):
    serves_foreign_clients(scene, [str(built / "server")])


def test_a_client_talks_to_a_foreign_tls_server(scene: Scene, built: Path):
    uses_a_foreign_server(scene, [str(built / "client")])


@pytest.mark.measured
def test_client_and_server_are_both_covered(scene: Scene, built: Path):
    found = "It registers on a copy of the epoll descriptor that it waits on: events were lost, until the shim stopped "
    scene.row("Rust, tokio", debian_version("librust-tokio-dev"), found + "telling sets by their descriptors.")
    talk_to_each_other(scene, [str(built / "server")], [str(built / "client")])
