"""curl and wget fetch and upload, from a TLS server that is not ours."""

import os

import pytest

from tests.programs.foreign import Site
from tests.programs.results import debian_version
from tests.programs.scene import Scene

DATA = os.urandom(3_000_000)


@pytest.fixture
def site(scene: Scene):
    with Site(scene, {"/file": DATA}) as server:
        yield server


def test_curl_downloads_and_uploads(scene: Scene, site: Site):
    scene.row("curl", debian_version("curl"))
    scene.expect("tcp")  # localhost is ::1 first, where nobody listens
    url = f"http://localhost:{site.port}"
    assert scene.use(["curl", "-sS", "--fail", f"{url}/file"], site.port).stdout == DATA
    upload = scene.file("upload", DATA)
    scene.use(["curl", "-sS", "--fail", "-T", str(upload), f"{url}/put"], site.port)
    scene.use(["curl", "-sS", "--fail", "--data-binary", f"@{upload}", f"{url}/post"], site.port)
    assert site.got == {"/put": DATA, "/post": DATA}


def test_curl_fetches_eight_files_at_once_over_connections_that_it_keeps(scene: Scene, site: Site):
    scene.expect("tcp")
    words = ["curl", "-sS", "--fail", "--parallel", "--parallel-max", "4"]
    for number in range(8):
        words += ["-o", str(scene.folder / f"got-{number}"), f"http://localhost:{site.port}/file"]
    scene.use(words, site.port)
    assert all((scene.folder / f"got-{number}").read_bytes() == DATA for number in range(8))


def test_wget_downloads_and_uploads(scene: Scene, site: Site):
    scene.row("wget", debian_version("wget"))
    scene.expect("tcp")
    url = f"http://localhost:{site.port}"
    assert scene.use(["wget", "-q", "-O", "-", f"{url}/file"], site.port).stdout == DATA
    upload = scene.file("upload", DATA)
    scene.use(["wget", "-q", "-O", "-", "--method=PUT", f"--body-file={upload}", f"{url}/put"], site.port)
    assert site.got["/put"] == DATA
