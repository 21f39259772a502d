"""Python: asyncio's streams, threads, requests, and uvicorn with an ASGI application."""

import sys
from importlib.metadata import version
from platform import python_version

import pytest

from tests.programs import echo, site
from tests.programs.echo import SOURCES
from tests.programs.scene import Scene

each = pytest.mark.parametrize("kind", ["asyncio", "threaded"])


def program(kind: str, role: str) -> list[str]:
    return [sys.executable, str(SOURCES / "python" / f"{kind}_{role}.py")]


@each
def test_a_server_answers_foreign_tls_clients(scene: Scene, kind: str):
    echo.serves_foreign_clients(scene, program(kind, "server"))


@each
def test_a_client_talks_to_a_foreign_tls_server(scene: Scene, kind: str):
    echo.uses_a_foreign_server(scene, program(kind, "client"))


@each
@pytest.mark.measured
def test_client_and_server_are_both_covered(scene: Scene, kind: str):
    scene.row(f"Python, {kind}", python_version())
    echo.talk_to_each_other(scene, program(kind, "server"), program(kind, "client"))


def test_uvicorn_answers_a_foreign_client(scene: Scene):
    port = scene.port()
    site.serves_a_foreign_client(scene, site.uvicorn(port), port, site.file_of(scene, "site"))


def test_requests_talks_to_a_foreign_server(scene: Scene):
    site.uses_a_foreign_server(scene, site.REQUESTS, connections=1)


@pytest.mark.measured
def test_uvicorn_and_requests_are_both_covered(scene: Scene):
    scene.row("uvicorn, requests", f"{version('uvicorn')}, {version('requests')}")
    port, page = scene.port(), site.file_of(scene, "site", scene.load(site.TOTAL, site.LOAD))
    site.talk_to_each_other(scene, site.uvicorn(port), port, site.REQUESTS, page)
