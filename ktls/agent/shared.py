"""What all connections of an agent share: policy, poller, threads, environments, capabilities, report."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ktls.agent.firsts import Firsts
from ktls.agent.programs import holders
from ktls.agent.report import Report
from ktls.agent.unprotected import Unprotected
from ktls.environment import Environment, EnvironmentCache, TlsParameters
from ktls.poller import Poller
from ktls.probe import Capabilities, probe
from policy.model import Policy

T = TypeVar("T")
WAITING_THREADS = 8
"""Rekeys at once that programs may hold up before others wait."""


class Shared:
    """Made once by the agent, inside its loop.

    Args:
        policy: what decides.
        report: where events go.
    """

    def __init__(self, policy: Policy, report: Report) -> None:
        self.policy = policy
        self.report = report
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self.loop)
        self.firsts = Firsts()
        self.unprotected = Unprotected(self.loop, report)
        # OpenSSL lets go of the interpreter lock, so as many handshakes proceed as there are processors.
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="handshake")
        self._scanner = ThreadPoolExecutor(1, thread_name_prefix="holders")
        # These may have to wait for programs, so they are not the threads of others' handshakes.
        self._waiting = ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="rekey")
        self.environments = EnvironmentCache()
        self._environment_lock = asyncio.Lock()
        self._capabilities = self.loop.run_in_executor(self.pool, probe)
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._scan: asyncio.Task[None] | None = None

    async def capabilities(self) -> Capabilities:
        """Return what this kernel can do, probed once when the agent starts."""
        return await asyncio.shield(self._capabilities)

    async def environment(self, parameters: TlsParameters) -> tuple[Environment, bool]:
        """Return the environment for these parameters, made by the first connection that needs it (Fig. 3, block 315).

        Returns:
            The environment, and whether this call made it.

        Raises:
            KeyringError: its keyring cannot be opened. The next connection tries again.
        """
        async with self._environment_lock:
            before = self.environments.created
            environment = await self.in_thread(lambda: self.environments.get(parameters))
            return environment, self.environments.created > before

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do heavy work in a thread; it is waited for even when the caller is cancelled meanwhile."""
        return await asyncio.shield(self.loop.run_in_executor(self.pool, work))

    async def in_waiting_thread(self, work: Callable[[], T]) -> T:
        """Do what may have to wait for a program."""
        return await asyncio.shield(self.loop.run_in_executor(self._waiting, work))

    async def held(self, inode: int) -> bool:
        """Tell whether another process has the socket with this inode. One look at /proc answers all who wait."""
        answer = self._asked.setdefault(inode, self.loop.create_future())
        if self._scan is None or self._scan.done():
            self._scan = self.loop.create_task(self._answer())
        return await asyncio.shield(answer)

    async def _answer(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            inodes = frozenset(asked)
            try:
                found = await self.loop.run_in_executor(self._scanner, holders, inodes)
            except Exception as error:  # everybody's: without an answer they would wait for ever
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for inode, answer in asked.items():
                    answer.set_result(inode in found)

    def close(self) -> None:
        """Let go of everything. No connection may be left."""
        self.unprotected.close()
        self.poller.close()
        self.pool.shutdown(wait=True)
        self._scanner.shutdown(wait=True)
        self._waiting.shutdown(wait=False)  # a program may hold one up for as long as it likes
        self.report.close()
