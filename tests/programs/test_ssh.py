"""OpenSSH through a TLS connection: sshd forks, executes itself again, changes its root and its user."""

import os
import time
from pathlib import Path

import pytest

from tests.programs.foreign import tls_before
from tests.programs.results import debian_version
from tests.programs.scene import Scene

DATA = os.urandom(1_000_000)
SEPARATION = Path("/run/sshd")  # where sshd has its unprivileged child's root; Debian's service makes it

SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


def serve(scene: Scene, *, covered: bool = True) -> int:
    found = "sshd's sandbox kills a process that calls recvmsg(), which read() of ours did; fixed"
    scene.row("OpenSSH", debian_version("openssh-server"), found)
    SEPARATION.mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        scene.use_plain(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scene.folder / name)])
    port = scene.port()
    config = scene.file("sshd.conf", SSHD.format(folder=scene.folder, port=port))
    scene.serve(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], port, covered=covered)
    return port


def options(scene: Scene, port_option: str, port: int) -> list[str]:
    words = ["-F", "none", "-i", str(scene.folder / "user"), port_option, str(port)]
    settings = ["BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={scene.folder}/known"]
    return words + [word for setting in settings for word in ("-o", setting)]


def copy_both_ways(scene: Scene, port: int, *ports: int, extra: tuple[str, ...] = ()) -> None:
    ssh = ["ssh", *options(scene, "-p", port), *extra, "root@127.0.0.1"]
    assert scene.use([*ssh, "echo here; exit 7"], *ports, status=7).stdout == b"here\n"
    assert scene.use([*ssh, "cat"], *ports, input=DATA).stdout == DATA


@pytest.mark.measured
def test_ssh_and_sftp_to_a_covered_sshd(scene: Scene):
    port = serve(scene)
    copy_both_ways(scene, port, port)
    upload = scene.file("upload", DATA)
    batch = f"put {upload} {scene.folder}/there\nget {scene.folder}/there {scene.folder}/back\n"
    scene.use(["sftp", *options(scene, "-P", port), "-b", "-", "root@127.0.0.1"], port, input=batch.encode())
    assert (scene.folder / "back").read_bytes() == DATA
    megabytes = scene.load(2, 300)
    start = time.monotonic()
    words = ["ssh", *options(scene, "-p", port), "root@127.0.0.1", f"head -c {megabytes}000000 /dev/zero"]
    assert len(scene.use(words, port).stdout) == megabytes * 1_000_000
    scene.rate("MB/s", megabytes / (time.monotonic() - start))


def test_a_covered_sshd_and_a_foreign_client(scene: Scene):
    port = serve(scene)
    scene.expect("truncated", "peer-closed")  # ssh ends its ProxyCommand with a signal
    tls = f"openssl s_client -quiet -verify_return_error -CAfile {scene.tls.ca} -connect 127.0.0.1:{port}"
    copy_both_ways(scene, port, extra=("-o", f"ProxyCommand={tls}"))


def test_a_covered_ssh_and_a_foreign_server(scene: Scene):
    port = tls_before(scene, serve(scene, covered=False))
    copy_both_ways(scene, port, port)
