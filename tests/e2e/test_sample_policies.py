"""The policies people can start from, each on live connections: ports, addresses and names alone are changed."""

import datetime
import grp
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.decided import SAID, connect, visit
from tests.e2e.harness import PATIENCE, PROGRAMS
from tests.e2e.peer import client_context, server_context
from tests.e2e.test_failures import leaf_files
from tests.ktls.handshake_peer import make_leaf, uri

__all__ = ["connect", "visit"]
POLICIES = Path(__file__).resolve().parents[2] / "policies"


@pytest.fixture
def sample(tls_files, ca, tmp_path):
    """The text of a sample, with its files there and with words replaced; each word must be in it."""

    def text(name: str, *replaced: tuple[str, str]) -> str:
        found = (POLICIES / f"{name}.toml").read_text().replace("version = 1\n", "")
        for old, new in replaced:
            assert old in found, old
            found = found.replace(old, new)
        service, key = leaf_files(tmp_path, ca.issue_cert("localhost", "127.0.0.1", "a.svc.example", "a.cache.example"))
        for line in (POLICIES / f"{name}.toml").read_text().splitlines():
            kind, _, path = line.partition(" = ")
            file = tmp_path / path.partition("#")[0].strip(' []"')
            if kind in ("certificate", "private_key", "trust"):
                source = {"certificate": service, "private_key": key, "trust": tls_files.ca}[kind]
                file.write_bytes(source.read_bytes())
        return found

    return text


@pytest.fixture
def server(tls_files):
    return server_context(str(tls_files.cert), str(tls_files.key))


@pytest.fixture
def client(tls_files):
    def make(pair=None) -> object:
        context = client_context(str(tls_files.ca))
        if pair is not None:
            context.load_cert_chain(*pair)
        return context

    return make


def test_secure_port(connect, visit, sample, server, client):
    text = sample("secure-port", ("8443", "PORT"))
    assert str(connect(text, server)) == "open"
    (one,) = visit(text, client())
    assert (str(one), one.error) == ("open", None)


def test_mutual_tls(connect, visit, sample, ca, tmp_path, client, server):
    text = sample("mutual-tls", ('"127.0.0.0/8"', '"127.0.0.9"'), ("10.20.0.0/16", "127.0.0.1"))
    service = leaf_files(tmp_path, ca.issue_cert("b.svc.example", "localhost"))
    assert str(connect(text, server_context(*map(str, service), version="1.3"))) == "open"
    assert str(connect(text, server)) == "EKEYREJECTED"  # vouched for, and no service
    ours, nobody = visit(text, client(service), client())
    assert (str(ours), str(nobody)) == ("open", "EKEYREJECTED")


def test_postgresql_clients(connect, sample, server):
    words = ("*.db.example", "localhost"), ("5432", "PORT"), ("192.0.2.0/24", "127.0.0.1")
    text = sample("postgresql-clients", *words)
    assert str(connect(text, server, host="localhost")) == "open"
    assert str(connect(text, server)) == "denied"


def test_redis(covered, write_policy, sample, free_port):
    """Server and client are the real ones, neither told of TLS; without a certificate nobody is heard."""
    port = free_port()
    path = write_policy("version = 1\n" + sample("redis", ('"6379", "16379"', f'"{port}"')))
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    covered(redis, policy=path, wait_port=port)
    asked = covered(["redis-cli", "-h", "127.0.0.1", "-p", str(port), "SET", "key", "value"], policy=path)
    assert asked.finish()[:2] == (0, "OK\n")
    assert asked.event("open")["rule"] == "redis out"
    clear = subprocess.run(
        ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "PING"], check=False, capture_output=True, timeout=PATIENCE
    )
    assert b"PONG" not in clear.stdout


def test_shared_port(covered, visit, transfer_command, write_policy, free_port, sample, client):
    (one,) = visit(sample("shared-port", ('"7000"', '"PORT"')), client())
    assert (str(one), one.event["rule"]) == ("open", "everybody else")
    (one,) = visit(sample("shared-port", ('"7025"', '"PORT"')), client())
    assert (str(one), one.event["rule"]) == ("open", "server that speaks first")
    for words in (('"7000"', '"PORT"'), ("10.9.0.0/16", "127.0.0.1")), (('"7025"', '"PORT"'), ("2.0", "0.3")):
        port = free_port()
        text = sample("shared-port", *words).replace("PORT", str(port))
        command = transfer_command("server", f"127.0.0.1:{port}", 5)
        program = covered(command, policy=write_policy("version = 1\n" + text), wait_port=port)
        with socket.create_connection(("127.0.0.1", port)) as sock:  # an old client, which waits for a greeting
            assert sock.recv(5) == bytes(range(5))
            sock.sendall(b"in clear")
        assert program.results()[0]["received"] == len(b"in clear")


def test_ftp(covered, write_policy, sample, free_port, tmp_path):
    port, file = free_port(), tmp_path / "file"
    file.write_bytes(b"0123456789" * 1000)
    path = write_policy("version = 1\n" + sample("ftp", ('"990"', f'"{port}"')))
    command = [sys.executable, str(PROGRAMS / "ftp.py")]
    server = covered([*command, "serve", str(port), str(file), "one"], policy=path, wait_port=port)
    client = covered([*command, "fetch", str(port), "passive", str(file)], policy=path)
    assert client.finish()[:2] == (0, "both whole\n")
    assert len(server.told(3, "end")) == 3
    for program in (server, client):
        assert [one["rule"][:3] for one in program.told(3, "open")] == ["ftp"] * 3
        assert program.events("clear") == []


def test_tls_only(connect, sample, server, tls_files):
    keyring = f'verify = "name"\nkeyring = "test"\n[keyring.test]\ntrust = ["{tls_files.ca}"]\n[action.unused]'
    here = ('"127.0.0.0/8"', '"127.0.0.9"')
    assert str(connect(sample("tls-only", here, ('verify = "name"', keyring)), server)) == "open"
    assert str(connect(sample("tls-only", here), server)) == "EKEYREJECTED"  # no authority of the system's
    clear = str(connect(sample("tls-only", here), None))
    assert clear in ("EPROTO", "ECONNRESET")  # a server that speaks clear text; it may have ended by then
    assert str(connect(sample("tls-only"), None)) == "clear"  # this machine


@pytest.mark.parametrize(("group", "day", "fate"), [("mine", 0, "open"), ("mine", 3, "denied"), ("other", 0, "denied")])
def test_groups_and_times(connect, sample, server, group, day, fate):
    today = datetime.datetime.now(datetime.UTC)
    days = [(today + datetime.timedelta(day + n)).strftime("%a").lower() for n in (0, 1)]
    mine = grp.getgrgid(os.getegid()).gr_name if group == "mine" else "some-group"
    time = 'days = ["mon-fri"], from = "07:00", to = "19:00", zone = "Europe/Berlin"'
    now = f'days = ["{days[0]}", "{days[1]}"], zone = "UTC"'
    words = ("192.0.2.0-192.0.2.63", "127.0.0.1"), ("7000-7099", "PORT"), (time, now), ('"accounting"', f'"{mine}"')
    fated = connect(sample("groups-and-times", *words), server)
    assert str(fated) == fate
    assert fated.result.get("received") == (len(SAID) if fate == "open" else None)


def test_users_by_certificate(visit, sample, ca, tmp_path, client):
    text = sample("users-by-certificate", ('"7000"', '"PORT"'))
    names = {
        "billing": uri("spiffe://example/billing"),
        "ann": x509.RFC822Name("ann@Example.com"),
        "batch": x509.DNSName("b7.batch.example"),
    }
    pairs = [make_leaf(tmp_path, user, ca, name) for user, name in names.items()]
    stranger = make_leaf(tmp_path, "stranger", ca, x509.DNSName("batch.example"))
    visits = visit(text, *(client((str(one.cert), str(one.key))) for one in (*pairs, stranger)))
    assert [one.event.get("peer_user") for one in visits] == [*names, None]
    assert str(visits[-1]) == "EKEYREJECTED"
