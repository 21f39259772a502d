"""Java: a Selector over non-blocking channels, and blocking sockets with threads."""

import subprocess
from pathlib import Path

import pytest

from tests.programs.echo import SOURCES, serves_foreign_clients, talk_to_each_other, uses_a_foreign_server
from tests.programs.results import debian_version
from tests.programs.scene import Scene

JAVA = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1"]  # quick to start
each = pytest.mark.parametrize("kind", ["Nio", "Blocking"])


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled programs."""
    folder = tmp_path_factory.mktemp("classes")
    sources = [str(path) for path in sorted((SOURCES / "java").glob("*.java"))]
    subprocess.run(["javac", "-d", str(folder), *sources], check=True, timeout=300)
    return folder


@each
def test_a_server_answers_foreign_tls_clients(scene: Scene, classes: Path, kind: str):
    serves_foreign_clients(scene, [*JAVA, "-cp", str(classes), f"{kind}Server"])


@each
def test_a_client_talks_to_a_foreign_tls_server(scene: Scene, classes: Path, kind: str):
    uses_a_foreign_server(scene, [*JAVA, "-cp", str(classes), f"{kind}Client"])


@each
@pytest.mark.measured
def test_client_and_server_are_both_covered(scene: Scene, classes: Path, kind: str):
    scene.row(f"Java, {'Selector' if kind == 'Nio' else 'blocking'}", debian_version("openjdk-17-jdk-headless"))
    command = [*JAVA, "-cp", str(classes)]
    talk_to_each_other(scene, [*command, f"{kind}Server"], [*command, f"{kind}Client"])
