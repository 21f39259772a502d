"""Memory that connections took is given back when they have ended, and not before."""

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ktls.agent import memory
from tests.e2e.harness import until

BLOCK, BLOCKS, KEPT = 20_000, 5000, 100  # bytes, how many, every which one stays


def resident() -> int:
    """KiB of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


@pytest.fixture
def fragmented():
    """Much free memory that the C library keeps, because blocks in use lie between."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in set(blocks) - set(blocks[::KEPT]):
        libc.free(block)
    yield
    for block in blocks[::KEPT]:
        libc.free(block)


@pytest.mark.usefixtures("fragmented")
async def test_memory_is_given_back_when_most_connections_have_ended(monkeypatch):
    monkeypatch.setattr(memory, "PAUSE", 0)
    with ThreadPoolExecutor(1) as pool:
        watched = memory.Memory(asyncio.get_running_loop(), pool)
        before = resident()
        for connections in (memory.WORTH, memory.WORTH // 2):
            watched.note(connections)
        await asyncio.sleep(0)
        assert resident() > before - BLOCK * BLOCKS // 1024 // 10, "half of them are still there"
        watched.note(memory.WORTH // 4)
        await asyncio.to_thread(until, lambda: resident() < before - BLOCK * BLOCKS // 1024 // 2, "memory to go back")


@pytest.mark.usefixtures("fragmented")
async def test_a_few_connections_are_not_worth_it(monkeypatch):
    monkeypatch.setattr(memory, "PAUSE", 0)
    with ThreadPoolExecutor(1) as pool:
        watched = memory.Memory(asyncio.get_running_loop(), pool)
        watched.note(memory.WORTH - 1)
        watched.note(0)
        assert watched._due is None
        watched.close()
