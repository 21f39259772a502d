"""The handshake driver over a socket, against the programs of OpenSSL."""

import socket
import subprocess

from ktls.ciphers import Version
from ktls.handshake import Handshake
from ktls.records import ContentType, RecordProtection, RecordReader
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_world import BOTH, only


@BOTH
def test_against_openssl_s_server(world, version, free_port):
    port = free_port()
    flag = "-tls1_2" if version is Version.TLS12 else "-tls1_3"
    command = ["openssl", "s_server", "-accept", str(port), "-cert", world.ec.cert, "-key", world.ec.key, flag]
    with subprocess.Popen([*command, "-rev"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            assert any(b"ACCEPT" in line for line in server.stdout)
            with socket.create_connection(("127.0.0.1", port)) as sock:
                session = hp.shake(Handshake(world.as_client(), server_name="localhost"), sock)
                sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"hello\n"))
                assert read_data(sock, RecordProtection(session.rx)) == b"olleh\n"
        finally:
            server.kill()


@BOTH
def test_against_openssl_s_client(world, version):
    flag = "-tls1_2" if version is Version.TLS12 else "-tls1_3"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", world.ca_file]
        more = ["-servername", "localhost", "-verify_return_error", "-quiet", flag]
        with subprocess.Popen(
            [*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            try:
                sock, _ = listener.accept()
                with sock:
                    session = hp.shake(Handshake(world.as_server()), sock)
                    assert session.server_name == "localhost"
                    program.stdin.write(b"question\n")
                    program.stdin.flush()
                    assert read_data(sock, RecordProtection(session.rx)) == b"question\n"
                    sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"answer\n"))
                    assert program.stdout.readline() == b"answer\n"
            finally:
                program.kill()


def test_a_server_knows_a_resumption_behind_a_hello_retry_request(world, tmp_path):
    """s_client guesses a group that our server does not take, both times."""
    environment, session_file = world.as_server(**only(Version.TLS13)), tmp_path / "session.pem"
    resumed = []
    for option in ("-sess_out", "-sess_in"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-quiet"]
            command += ["-groups", "ffdhe8192:X25519", option, str(session_file)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as program:
                try:
                    sock, _ = listener.accept()
                    with sock:
                        session = hp.shake(Handshake(environment), sock)
                        sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"tickets came\n"))
                        assert program.stdout is not None
                        assert program.stdout.readline() == b"tickets came\n"
                        resumed.append(session.resumed)
                finally:
                    program.kill()
    assert resumed == [False, True]


def read_data(sock: socket.socket, protection: RecordProtection) -> bytes:
    """The next application data record's content, past tickets."""
    reader = RecordReader()
    while True:
        while (record := reader.next_record()) is None:
            data = sock.recv(reader.want)
            assert data, "end of file"
            reader.feed(data)
        opened = protection.open(record)
        if opened.content_type is ContentType.APPLICATION_DATA:
            return opened.data
