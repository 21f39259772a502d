"""tools/soak, small: load with abuse, and connections held, leave nothing behind (docs/soak.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = bool(os.environ.get("KTLS_REQUIRE_LAB"))
pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not REQUIRED, reason="tools/soak must be root")


def soak(*words: str) -> dict:
    command = [sys.executable, str(ROOT / "tools/soak"), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == []
    assert done.returncode == 0
    return result


def test_a_mix_of_requests_aborts_half_closes_and_kills_leaves_nothing_behind(engine):
    result = soak("mix", "--engine", engine, "--clients", "6", "--requests", "200", "--seconds", "8")
    assert result["requests"] > 20
    assert result["bytes_checked"] > 0
    assert result["kills"] > 0
    assert result["agents"]["servers"]["open"] == result["agents"]["servers"]["end"] > 0
    if engine == "kernel":
        before, after = result["tls_stat"]["TlsTxSw"]
        assert after > before
        assert result["tls_stat"]["TlsCurrTxSw"] == [0, 0]


def test_connections_held_at_once_all_answer_and_all_go(engine):
    result = soak("hold", "--engine", engine, "--connections", "100", "--seconds", "1")
    assert result["tcp_sockets_held"] >= 200
    assert result["agent_of_server_descriptors_each"] == 2
    assert result["agents"]["of server 1"] == result["agents"]["of client 1"] == {"open": 150, "end": 150}
