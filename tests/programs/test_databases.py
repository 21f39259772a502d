"""PostgreSQL: a process for each connection, and libpq, which connects without blocking and polls by itself."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.programs.foreign import tls_before, tls_towards
from tests.programs.results import debian_version
from tests.programs.scene import Scene

[BINARIES] = Path("/usr/lib/postgresql").glob("*/bin")  # Debian 12 has 15
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]  # it refuses root
LINES = "".join(f"{number}\t{hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(30_000)).encode()


def prepare(scene: Scene) -> Path:
    """A new cluster, owned by postgres."""
    scene.row("PostgreSQL, psql, pgbench", debian_version("postgresql-15"))
    data = scene.directory("data")
    words = [str(BINARIES / "initdb"), "-D", str(data / "cluster"), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
    scene.use_plain([*AS_POSTGRES, *words, "--locale=C", "--no-sync", "--no-instructions"], timeout=100)
    return data / "cluster"


def server_words(scene: Scene, data: Path, port: int) -> list[str]:
    words = [*AS_POSTGRES, str(BINARIES / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-F"]
    return [*words, "-c", f"unix_socket_directories={data.parent}", "-c", "ssl=off"]


def serve(scene: Scene, *, covered: bool = True) -> int:
    port = scene.port()
    scene.serve(server_words(scene, prepare(scene), port), port, covered=covered)
    return port


def psql(scene: Scene, port: int, *ports: int, command: str, input: bytes = b"") -> bytes:
    address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"
    words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", address, "-c", command]
    return scene.use(words, *ports, input=input).stdout


def copy_both_ways(scene: Scene, port: int, *ports: int) -> None:
    """COPY 2 MB into a table and out of it again."""
    psql(scene, port, *ports, command="create table t (number int, hash text)")
    psql(scene, port, *ports, command="copy t from stdin", input=LINES)
    assert psql(scene, port, *ports, command="select count(*) from t") == b"30000\n"
    assert psql(scene, port, *ports, command="copy (select * from t order by number) to stdout") == LINES


@pytest.mark.measured
def test_psql_copies_and_pgbench_has_no_failure(scene: Scene):
    port = serve(scene)
    copy_both_ways(scene, port, port)
    bench = ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    environment = {"PGSSLMODE": "disable", "PGDATABASE": "postgres"}
    scene.use([*bench, "-i", "-q"], port, env=environment)
    load = ["-c", "8", "-j", "2", "-S", "-t", str(scene.load(50, 4000))]
    out = scene.use([*bench, *load], port, env=environment).stdout.decode()
    assert "number of failed transactions: 0 " in out
    speed = re.search(r"tps = ([\d.]+) \(without", out)
    assert speed
    scene.rate("transactions/s, 8 clients, read only", float(speed[1]))
    out = scene.use(
        [*bench, "-C", "-S", "-c", "2", "-t", str(scene.load(5, 100))], port, env=environment
    ).stdout.decode()
    speed = re.search(r"tps = ([\d.]+) \(including", out)
    assert speed
    scene.rate("transactions/s, each with a new connection", float(speed[1]))


def test_a_covered_postgres_and_a_foreign_client(scene: Scene):
    copy_both_ways(scene, tls_towards(scene, serve(scene)))


def test_a_covered_psql_and_a_foreign_server(scene: Scene):
    port = tls_before(scene, serve(scene, covered=False))
    copy_both_ways(scene, port, port)
