"""Web servers, a proxy, and wrk: nginx, Apache, lighttpd, haproxy. All of them give up root."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.programs.foreign import Site
from tests.programs.results import debian_version
from tests.programs.scene import Scene

DATA = os.urandom(2_000_000)
HASH = hashlib.sha256(DATA).hexdigest().encode()

NGINX = """
daemon off; user www-data; worker_processes 2; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_max_body_size 0;
  client_body_temp_path {folder}/tmp/body; proxy_temp_path {folder}/tmp/proxy; fastcgi_temp_path {folder}/tmp/fastcgi;
  uwsgi_temp_path {folder}/tmp/uwsgi; scgi_temp_path {folder}/tmp/scgi;
  server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""

APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
Listen 127.0.0.1:{port}
User www-data
Group www-data
ErrorLog /dev/stderr
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so
ScriptSock {folder}/cgid.sock
EnableSendfile On
DocumentRoot {folder}/site
ScriptAlias /hash {folder}/hash
MaxKeepAliveRequests 0
"""

LIGHTTPD = """
server.port = {port}
server.bind = "127.0.0.1"
server.username = "www-data"
server.document-root = "{folder}/site"
server.modules = ("mod_alias", "mod_cgi")
server.upload-dirs = ("{folder}/tmp")
server.max-keep-alive-requests = 1000000
alias.url = ("/hash" => "{folder}/hash")
$HTTP["url"] =~ "^/hash" {{ cgi.assign = ("" => "") }}
"""


def prepare(scene: Scene) -> None:
    """A site with a file and an empty place for uploads, and a CGI script that hashes what it is sent."""
    scene.directory("site")
    scene.directory("tmp")
    scene.file("site/file", DATA)
    scene.file("site/small", b"x" * 1000)
    scene.file("hash", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nexec sha256sum\n", mode=0o755)


def serve_nginx(scene: Scene, server: str, **options: Any) -> int:
    port = scene.port()
    text = NGINX.format(folder=scene.folder, port=port, server=server.format(folder=scene.folder))
    scene.serve(["nginx", "-c", str(scene.file(f"nginx-{port}.conf", text))], port, **options)
    return port


def nginx(scene: Scene) -> int:
    prepare(scene)
    scene.row("nginx", debian_version("nginx"))
    return serve_nginx(scene, "root {folder}/site; dav_methods PUT;")


def apache(scene: Scene) -> int:
    prepare(scene)
    scene.row("Apache", debian_version("apache2"))
    port = scene.port()
    config = scene.file("apache.conf", APACHE.format(folder=scene.folder, port=port))
    scene.serve(["apache2", "-f", str(config), "-D", "FOREGROUND"], port)
    return port


def lighttpd(scene: Scene) -> int:
    prepare(scene)
    scene.row("lighttpd", debian_version("lighttpd"))
    port = scene.port()
    config = scene.file("lighttpd.conf", LIGHTTPD.format(folder=scene.folder, port=port))
    scene.serve(["lighttpd", "-D", "-f", str(config)], port)
    return port


def curl(scene: Scene, port: int, path: str, *words: str, foreign: bool = True) -> bytes:
    """What a curl with TLS of its own, or a covered one, gets."""
    command = ["curl", "-sS", "--fail", *words]
    if foreign:
        return scene.use_plain([*command, "--cacert", str(scene.tls.ca), f"https://127.0.0.1:{port}{path}"]).stdout
    return scene.use([*command, f"http://127.0.0.1:{port}{path}"], port).stdout


def wrk(scene: Scene, port: int, path: str) -> float:
    """Ten connections, as fast as they go; no error of any kind. Requests a second."""
    seconds = 5 if scene.engine == "kernel" else scene.load(1, 2)  # twenty slow handshakes come first in the lab
    out = scene.use(["wrk", "-t", "2", "-c", "10", "-d", str(seconds), f"http://127.0.0.1:{port}{path}"], port).stdout
    assert b"Socket errors" not in out, out
    assert b"Non-2xx" not in out, out
    speed = re.search(rb"Requests/sec: +([\d.]+)", out)
    assert speed, out
    assert float(speed[1]) > 0
    return float(speed[1])


SERVERS = pytest.mark.parametrize("start", [nginx, apache, lighttpd])


@SERVERS
def test_a_web_server_serves_and_is_sent_files(scene: Scene, start: Callable[[Scene], int]):
    port = start(scene)
    upload = str(scene.file("upload", DATA))
    for foreign in (True, False):
        assert curl(scene, port, "/file", foreign=foreign) == DATA
        assert curl(scene, port, "/file", "-r", "1000-1999", foreign=foreign) == DATA[1000:2000]
        if start is nginx:
            curl(scene, port, f"/upload-{foreign}", "-T", upload, foreign=foreign)
            assert (scene.folder / "site" / f"upload-{foreign}").read_bytes() == DATA
        else:
            assert HASH in curl(scene, port, "/hash", "--data-binary", f"@{upload}", foreign=foreign)


@pytest.mark.measured
@SERVERS
def test_wrk_has_no_errors(scene: Scene, start: Callable[[Scene], int]):
    port = start(scene)
    # wrk leaves while its last requests are on their way.
    scene.expect("truncated", "peer-closed", "program-gone")
    small = wrk(scene, port, "/small")
    scene.rate("requests/s, 1 kB", small)
    if start is nginx:
        scene.row("wrk", debian_version("wrk"))
        scene.rate("requests/s, 1 kB", small)


@pytest.mark.measured
def test_curl_downloads_from_nginx(scene: Scene):
    port = nginx(scene)
    scene.row("curl", debian_version("curl"))
    count = scene.load(5, 200)
    start = time.monotonic()
    got = curl(scene, port, "/file", *[f"http://127.0.0.1:{port}/file"] * (count - 1), foreign=False)
    scene.rate("MB/s", len(got) / 1e6 / (time.monotonic() - start))
    assert got == DATA * count


def test_nginx_is_a_proxy_with_tls_on_both_sides(scene: Scene):
    """What it hears is clear text, and so is what it asks for; both are TLS on the wire, with foreign ends."""
    prepare(scene)
    scene.row("nginx (proxy)", debian_version("nginx"))
    with Site(scene, {"/file": DATA}) as site:
        port = serve_nginx(
            scene, f"location / {{{{ proxy_pass http://127.0.0.1:{site.port}; }}}}", outbound=[site.port]
        )
        assert curl(scene, port, "/file") == DATA
        curl(scene, port, "/put", "-T", str(scene.file("upload", DATA)))
        assert site.got["/put"] == DATA


@pytest.mark.measured
def test_nginx_is_a_proxy_for_nginx(scene: Scene):
    behind = nginx(scene)
    scene.row("nginx (proxy)", debian_version("nginx"))
    server = f"location / {{{{ proxy_pass http://127.0.0.1:{behind}; }}}}"
    port = serve_nginx(scene, server, outbound=[behind])
    assert curl(scene, port, "/file", foreign=False) == DATA
    scene.expect("truncated", "peer-closed", "program-gone")
    scene.rate("requests/s, 1 kB", wrk(scene, port, "/small"))


HAPROXY = """
global
  maxconn 200
defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
  option splice-auto
  option splice-request
  option splice-response
listen a
  bind 127.0.0.1:{port}
  server s 127.0.0.1:{behind}
"""


def serve_haproxy(scene: Scene, behind: int) -> int:
    scene.row("haproxy (splice)", debian_version("haproxy"))
    port = scene.port()
    config = scene.file("haproxy.cfg", HAPROXY.format(port=port, behind=behind))
    scene.serve(["haproxy", "-db", "-f", str(config)], port, outbound=[behind])
    return port


def test_haproxy_splices_between_foreign_ends(scene: Scene):
    with Site(scene, {"/file": DATA}) as site:
        port = serve_haproxy(scene, site.port)
        assert curl(scene, port, "/file") == DATA
        curl(scene, port, "/put", "-T", str(scene.file("upload", DATA)))
        assert site.got["/put"] == DATA


@pytest.mark.measured
def test_haproxy_splices_for_nginx(scene: Scene):
    behind = nginx(scene)
    port = serve_haproxy(scene, behind)
    count = scene.load(3, 60)
    start = time.monotonic()
    got = curl(scene, port, "/file", *[f"http://127.0.0.1:{port}/file"] * (count - 1), foreign=False)
    scene.rate("MB/s", len(got) / 1e6 / (time.monotonic() - start))
    assert got == DATA * count
