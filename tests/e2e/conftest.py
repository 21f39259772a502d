"""Running programs under `ktls run` and looking at what the agent wrote down.

The same tests run without kTLS (KTLS_TEST_ENGINE=relay, the default) and in the lab (KTLS_TEST_ENGINE=kernel): the
engine is given on the command line, and "kernel" never falls back, so a test cannot pass with the wrong one.
"""

import contextlib
import datetime
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.harness import PROGRAMS, SETTINGS, Program, as_words, can_rekey, check_log, fork_agent, listens, until
from tests.e2e.peer import OPENED

FOLDER = Path(__file__).parent
QUICK = ("test_foreign_peers.py",)  # for everyday work, `make test-fast`


@pytest.fixture(scope="session")
def engine() -> str:
    """Which engine protects the connections of this run."""
    return os.environ.get("KTLS_TEST_ENGINE", "relay")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the KeyUpdate tests about the other kind of kernel; most of what is here is for `make test`."""
    for item in items:
        if item.path.parent == FOLDER and item.path.name not in QUICK:
            item.add_marker("slow")
    marked = [item for item in items if item.get_closest_marker("rekey") or item.get_closest_marker("no_rekey")]
    if not marked:
        return
    other = "no_rekey" if can_rekey() else "rekey"
    unwanted = [item for item in marked if item.get_closest_marker(other)]
    config.hook.pytest_deselected(items=unwanted)
    items[:] = [item for item in items if item not in unwanted]


@pytest.fixture(autouse=True)
def close_peers() -> Iterator[None]:
    """Close what TLS peers left open."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def covered(tmp_path: Path, engine: str) -> Iterator[Callable[..., Program]]:
    """Call it to start a program: covered(["curl", ...], outbound=[8443], ca=path).

    Its agent is forked from this process, where everything is imported already: in the lab that saves more than a
    second a program. With own_agent=True `ktls run` starts it, from the same settings on its command line.
    With stumbles=True its log may have tracebacks.
    """
    programs: list[Program] = []

    def start(
        command: list[str],
        *,
        own_agent: bool = False,
        wait_port: int | None = None,
        stumbles: bool = False,
        env: dict[str, str] | None = None,
        **settings: Any,
    ) -> Program:
        log = tmp_path / f"agent-{len(programs)}.log"
        options = {name: settings.pop(name) for name in list(settings) if name in SETTINGS}
        environment = {**os.environ, **(env or {})}
        words = [sys.executable, "-m", "ktls", "run"]
        if own_agent:
            words += ["--log", str(log), *as_words(options, engine)]
        else:
            environment["KTLS_AGENT"] = str(fork_agent(options, engine, log))
        program = Program([*words, "--", *command], log, stumbles).start(env=environment, **settings)
        programs.append(program)
        if wait_port is not None:
            until(lambda: listens(wait_port) or program.process.poll() is not None, f"a listener on {wait_port}")
            if program.process.poll() is not None:
                raise AssertionError(f"{command[0]} ended early: {program.finish()}")
        return program

    yield start
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            program.stop()
    for program in programs:
        if not program.stumbles:
            check_log(program.log)


@pytest.fixture
def transfer_command() -> Callable[..., list[str]]:
    """The command line of programs/transfer.py."""

    def command(role: str, address: str, total: int, mode: str = "blocking", connections: int = 1) -> list[str]:
        words = [sys.executable, str(PROGRAMS / "transfer.py"), role, address, str(total), mode]
        return [*words, "--connections", str(connections)]

    return command


@pytest.fixture
def write_policy(tmp_path: Path, engine: str) -> Callable[[str], Path]:
    """Write a policy file, a new one each time: agents watch theirs. {engine} in it becomes this run's engine."""
    numbers = itertools.count(1)

    def write(text: str) -> Path:
        path = tmp_path / f"policy-{next(numbers)}.toml"
        path.write_text(text.replace("{engine}", engine))
        return path

    return write


@pytest.fixture
def revoke(ca):
    """Call it with a certificate for a CRL (PEM) of its issuer that lists it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(leaf: trustme.LeafCert) -> bytes:
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
        key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        now = datetime.datetime.now(datetime.UTC)
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now).build()
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).add_revoked_certificate(entry)
        builder = builder.last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(days=1))
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    return make
