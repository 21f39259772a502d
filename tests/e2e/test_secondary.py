"""`secondary = true`: FTP's data connections are protected as the control connection is, whoever makes them."""

import sys

import pytest

from tests.e2e.harness import PROGRAMS

FTP = [sys.executable, str(PROGRAMS / "ftp.py")]


@pytest.fixture
def transfer(covered, write_policy, tls_files, free_port, tmp_path):
    """Fetch a file and send it back, both ends covered; returns (events of the server, events of the client)."""
    file = tmp_path / "file"
    file.write_bytes(bytes(range(251)) * 4000)

    def run(how: str, server_does: str = "one", secondary: str = "true"):
        port = free_port()
        policy = f"""
version = 1
[keyring.server]
certificate = "{tls_files.cert}"
private_key = "{tls_files.key}"
[keyring.client]
trust = ["{tls_files.ca}"]
[[rule]]
name = "control"
direction = "DIRECTION"
PORT = ["{port}"]
verdict = "tls"
action = {{ keyring = "ROLE", engine = "{{engine}}", secondary = {secondary} }}
"""
        in_ = policy.replace("DIRECTION", "inbound").replace("PORT", "local_port").replace("ROLE", "server")
        out = policy.replace("DIRECTION", "outbound").replace("PORT", "remote_port").replace("ROLE", "client")
        server = covered([*FTP, "serve", str(port), str(file), server_does], policy=write_policy(in_), wait_port=port)
        client = covered([*FTP, "fetch", str(port), how, str(file)], policy=write_policy(out))
        assert client.finish() == (0, "both whole\n", "")
        assert server.finish()[0] == 0
        return server, client

    return run


@pytest.mark.parametrize("server_does", ["one", "fork"])
@pytest.mark.parametrize("how", ["passive", "active"])
def test_data_connections_inherit_the_rule_of_their_control_connection(transfer, how, server_does):
    for program in transfer(how, server_does):
        control, *data = program.told(3, "open")
        assert len(data) == 2
        assert {one["rule"] for one in data} == {"control"}
        assert all(one["reason"].startswith(f"goes with connection {control['id']}: ") for one in data)
        assert program.events("clear") == []


@pytest.mark.parametrize("how", ["passive", "active"])
def test_without_the_key_they_are_decided_by_the_rules_like_any_other(transfer, how):
    for program in transfer(how, secondary="false"):
        assert len(program.told(1, "open")) == 1
        assert len(program.told(2, "clear")) == 2


def test_ftps_client_is_tls_client_on_every_data_connection(transfer):
    """RFC 4217 section 7: also where the server connects; its certificate is checked again, the client needs none."""
    _, client = transfer("active")
    assert [one["direction"] for one in client.told(3, "open")] == ["outbound", "inbound", "inbound"]
    assert all("localhost" in one["peer_names"] for one in client.events("open"))
