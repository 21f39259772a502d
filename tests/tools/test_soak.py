"""What tools/soak checks, it notices."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from tools.soaking import counts, hold
from tools.soaking.exchanges import Targets, Visit
from tools.soaking.links import Blocking, Broken, Reader, drive
from tools.soaking.stage import Tally
from tools.soaking.verdict import Verdict

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4


def serve(answer: bytes) -> Targets:
    """A web server with one file that gives this answer to whatever is asked, once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + answer)

    threading.Thread(target=work, daemon=True).start()
    files = {"/file": (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())}
    return Targets("127.0.0.1", {"http": listener.getsockname()[1]}, files)


def get(answer: bytes) -> Visit:
    """One GET, as a client of the mix does it."""
    link = Blocking()
    with link.sock:
        targets = serve(answer)
        visit = Visit(link, Random(0), targets, 0)
        drive(link.connect((targets.host, targets.ports["http"])))
        drive(visit._get())
    return visit


def test_the_right_bytes_are_counted():
    visit = get(CONTENT)
    assert (visit.requests, visit.checked) == (1, len(CONTENT))


@pytest.mark.parametrize(
    "answer", [CONTENT[:-1] + b"!", CONTENT[:-1]], ids=["a wrong byte", "a byte too few"]
)  # fmt: skip
def test_wrong_bytes_are_a_fault(answer):
    with pytest.raises(Broken):
        get(answer)


def test_something_behind_the_end_is_a_fault():
    link = Blocking()
    ours, theirs = socket.socketpair()
    link.sock.close()
    link.sock = ours
    with ours, theirs:
        theirs.sendall(b"+OK\r\nmore")
        reader = Reader(link)
        assert drive(reader.line()) == b"+OK"
        with pytest.raises(Broken):
            drive(reader.end())


def test_a_visit_is_repeated_by_its_seed():
    def choices(number: int) -> list[bytes]:
        link = Blocking()
        with link.sock:
            visit = Visit(link, Random(f"1/2/{number}"), Targets("", {}, {}), 2)
            return [visit._body() for _ in range(3)]

    assert choices(7) == choices(7) != choices(8)


def measured(**changes: int) -> counts.Counts:
    values = {"sockets": 3, "rss": 1000, "threads": 1, "tcp": 2, "TlsCurrTxSw": 0, "TlsDecryptError": 0} | changes
    process = counts.ProcessCounts({"socket": values["sockets"]}, values["rss"], values["threads"])
    tls = {name: value for name, value in values.items() if name.startswith("Tls")}
    return counts.Counts({"agent": process}, {"tcp": values["tcp"]}, tls)


def judged(after: counts.Counts) -> list[str]:
    return Verdict("", {}, measured(), after, [], {"other": 100}).judge("relay").faults


def test_what_is_back_is_good():
    assert judged(measured(rss=1100)) == []


@pytest.mark.parametrize(
    "change", [{"sockets": 4}, {"rss": 1101}, {"threads": 17}, {"tcp": 3}, {"TlsCurrTxSw": 1}, {"TlsDecryptError": 1}]
)
def test_what_is_left_behind_is_a_fault(change):
    assert len(judged(measured(**change))) == 1


def test_descriptors_are_counted_by_kind():
    before = counts.of_process(os.getpid()).descriptors.get("socket", 0)
    with socket.socket(), socket.socket():
        assert counts.of_process(os.getpid()).descriptors["socket"] == before + 2


def test_agents_reports_are_counted(tmp_path):
    tally = Tally(tmp_path / "log")
    lines = [
        '{"event":"open","engine":"relay"}', '{"event":"open","engine":"relay"}', '{"event":"end","ended":"closed"}',
        '{"event":"failed","error":"bad-record"}', "Traceback (most recent call last):",
    ]  # fmt: skip
    tally.path.write_text("\n".join(lines) + "\n")
    done = threading.Event()
    for _ in range(200):
        if sum(tally.events.values()) == 4 and tally.failures.total() == 2:
            break
        done.wait(0.05)
    assert tally.standing == 1
    assert tally.engines == {"relay": 2}
    assert tally.failures == {"failed: bad-record": 1, "said: Traceback (most recent call last):": 1}


def test_no_process_needs_more_descriptors_than_it_may_have():
    for limit in (1024, 20000, 1 << 20):
        parts = hold.shares_of(10000, limit)
        assert sum(parts) == 10000
        assert max(parts) * 2 * 4 / 3 <= limit


def test_it_explains_itself():
    done = subprocess.run([sys.executable, ROOT / "tools/soak", "--help"], capture_output=True, text=True, check=True)
    assert "tools/soak hold --connections 10000" in done.stdout
