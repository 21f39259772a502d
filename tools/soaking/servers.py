"""The servers of a mix: nginx, redis-server and the sink, with what they serve."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import counts
from .exchanges import Targets
from .stage import Agent, Stage, until

PORTS = {"http": 8080, "redis": 6379, "sink": 8081}
"""Free for certain: the network namespace is new."""
SIZES = (0, 1, 1000, 16384, 16385, 100_000, 1_000_000)
WORKERS = 2

NGINX = """
daemon off;
user root;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 20;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/site;
        client_max_body_size 16m;
        location /up/ {{ dav_methods PUT; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """Three servers that run.

    Attributes:
        pids: of all their processes, by name.
        targets: for the clients.
    """

    pids: dict[str, int]
    targets: Targets


def start(stage: Stage, agent: Agent) -> Servers:
    """Start the three under one agent."""
    files = make_site(stage.folder / "site")
    configuration = stage.folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=stage.folder, port=PORTS["http"], workers=WORKERS))
    web = stage.serve(agent, ["nginx", "-p", str(stage.folder), "-c", str(configuration)], PORTS["http"])
    until(lambda: len(counts.children(web.pid)) == WORKERS, 30, "nginx's workers")
    words = ["--port", str(PORTS["redis"]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    words += ["--dir", str(stage.folder), "--tcp-backlog", "1024"]
    redis = stage.serve(agent, ["redis-server", *words], PORTS["redis"])
    sink = stage.serve(agent, [sys.executable, "-m", "soaking.sink", str(PORTS["sink"])], PORTS["sink"])
    pids = {"nginx master": web.pid, "redis": redis.pid, "sink": sink.pid}
    pids |= {f"nginx worker {number}": pid for number, pid in enumerate(sorted(counts.children(web.pid)), 1)}
    return Servers(pids, Targets("127.0.0.1", PORTS, files))


def make_site(folder: Path) -> dict[str, tuple[int, str]]:
    """Write files of several sizes; returns size and SHA-256 by path."""
    (folder / "up").mkdir(parents=True)
    os.umask(0o022)
    files = {}
    for size in SIZES:
        content = Random(size).randbytes(size)
        (folder / str(size)).write_bytes(content)
        files[f"/{size}"] = size, hashlib.sha256(content).hexdigest()
    return files
