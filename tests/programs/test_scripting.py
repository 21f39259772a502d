"""Perl, Ruby, PHP, Tcl and Lua: sockets and select() as their own libraries have them, and HTTP as PHP has it."""

import subprocess
import time

import pytest

from tests.programs import site
from tests.programs.echo import SOURCES, serves_foreign_clients, talk_to_each_other, uses_a_foreign_server
from tests.programs.results import debian_version
from tests.programs.scene import Scene

LANGUAGES = {  # how its programs are called, and the Debian package that has it
    "perl": (["perl"], "pl", "perl"),
    "ruby": (["ruby"], "rb", "ruby3.1"),
    "php": (["php"], "php", "php8.2-cli"),
    "tcl": (["tclsh"], "tcl", "tcl"),
    "lua": (["lua5.4"], "lua", "lua5.4"),
}
each = pytest.mark.parametrize("name", LANGUAGES)


def program(name: str, role: str) -> list[str]:
    words, suffix, _ = LANGUAGES[name]
    return [*words, str(SOURCES / name / f"{role}.{suffix}")]


@each
def test_a_server_answers_foreign_tls_clients(scene: Scene, name: str):
    serves_foreign_clients(scene, program(name, "server"))


@each
def test_a_client_talks_to_a_foreign_tls_server(scene: Scene, name: str):
    uses_a_foreign_server(scene, program(name, "client"))


@each
@pytest.mark.measured
def test_client_and_server_are_both_covered(scene: Scene, name: str):
    scene.row(name, debian_version(LANGUAGES[name][2]))
    talk_to_each_other(scene, program(name, "server"), program(name, "client"))


PHP_FETCH = ["php", str(SOURCES / "php" / "fetch.php")]


def php_site(port: int, *options: str) -> list[str]:
    return ["php", *options, "-S", f"127.0.0.1:{port}", str(SOURCES / "php" / "site.php")]


def test_php_file_get_contents_gets_all_of_300_kb_from_a_foreign_server(scene: Scene):
    """PHP takes a readable socket that has nothing to read for the end of the file."""
    page, sent = site.file_of(scene, "site", 300_000), site.file_of(scene, "sent", 300_000)
    port = site.serve_foreign(scene, page)
    said = scene.use([*PHP_FETCH, f"http://127.0.0.1:{port}", str(sent)], port)
    assert said.stdout.decode().splitlines() == site.fetched(sent, page)[:2]


def test_php_built_in_server_answers_a_foreign_client(scene: Scene):
    """It closes after each answer: curl asks, and posts."""
    port, page, sent = scene.port(), site.file_of(scene, "site"), site.file_of(scene, "sent")
    scene.serve(php_site(port), port, env={"STREAM": str(page)})
    curl = ["curl", "-sS", "--cacert", str(scene.tls.ca), f"https://localhost:{port}"]
    for words, expected in (("/stream",), page.read_bytes()), (("/sum", "--data-binary", f"@{sent}"), None):
        got = subprocess.run([*curl[:-1], curl[-1] + words[0], *words[1:]], check=True, capture_output=True, timeout=60)
        assert got.stdout == (expected or site.sum_of(sent).encode())


@pytest.mark.measured
def test_php_client_and_built_in_server_are_both_covered(scene: Scene):
    scene.row("PHP, file_get_contents and php -S", debian_version("php8.2-cli"))
    port, page = scene.port(), site.file_of(scene, "site", scene.load(300_000, 100_000_000))
    unlimited = ["-d", "memory_limit=-1", "-d", "post_max_size=0"]
    scene.serve(php_site(port, *unlimited), port, env={"STREAM": str(page)})
    start = time.monotonic()
    said = scene.use([*PHP_FETCH[:1], *unlimited, *PHP_FETCH[1:], f"http://127.0.0.1:{port}", str(page)], port)
    scene.rate("MB/s", 2 * page.stat().st_size / 1e6 / (time.monotonic() - start))
    assert said.stdout.decode().splitlines() == site.fetched(page, page)[:2]
