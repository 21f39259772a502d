"""A program that knows no TLS and does what it is told, printing what each step gave (JSON, one line each).

usage: steps.py STEP...      each STEP is a word, with its argument after "=":

    listen=PORT accept connect=PORT      sockets; connect is blocking
    connect-nonblocking=PORT             connect_ex on a non-blocking socket
    blocking=0|1 write=TEXT read=N read-all shutdown close
    wait-readable wait-writable          poll(2) for at most 30 s
    so-error peer                        getsockopt(SO_ERROR), getpeername
    fork-child=STEP,STEP...              a child does these steps on the same socket and ends; the parent waits for it
    exec-child=STEP,STEP...              the same in a new program, on the inherited descriptor
    go                                   waits for a line on standard input
"""

import json
import os
import select
import socket
import subprocess
import sys


def say(step: str, **values: object) -> None:
    print(json.dumps({"step": step, **values}), flush=True)


class Runner:
    def __init__(self, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.socket()  # replaced by accept, connect or inherit
        self.listener: socket.socket | None = None

    def run(self, steps: list[str]) -> None:
        for step in steps:
            name, _, argument = step.partition("=")
            try:
                values = getattr(self, "do_" + name.replace("-", "_"))(argument) or {}
            except OSError as error:
                values = {"errno": error.errno, "error": str(error)}
            say(name, **values)

    def do_listen(self, port: str) -> None:
        self.listener = socket.create_server(("127.0.0.1", int(port)))

    def do_accept(self, _: str) -> None:
        assert self.listener
        self.sock, _address = self.listener.accept()

    def do_connect(self, port: str) -> None:
        self.sock = socket.socket()
        self.sock.connect(("127.0.0.1", int(port)))

    def do_connect_nonblocking(self, port: str) -> dict:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        return {"result": self.sock.connect_ex(("127.0.0.1", int(port)))}

    def do_blocking(self, on: str) -> None:
        self.sock.setblocking(on == "1")

    def do_write(self, text: str) -> dict:
        return {"wrote": self.sock.send(text.encode())}

    def do_read(self, size: str) -> dict:
        return {"got": self.sock.recv(int(size)).decode("latin-1")}

    def do_read_all(self, _: str) -> dict:
        data = b""
        while part := self.sock.recv(65536):
            data += part
        return {"got": data.decode("latin-1")}

    def do_shutdown(self, _: str) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def do_close(self, _: str) -> None:
        self.sock.close()

    def do_wait_readable(self, _: str) -> dict:
        return self._wait(select.POLLIN)

    def do_wait_writable(self, _: str) -> dict:
        return self._wait(select.POLLOUT)

    def _wait(self, events: int) -> dict:
        poll = select.poll()
        poll.register(self.sock, events)
        return {"events": poll.poll(30000)[0][1]}

    def do_so_error(self, _: str) -> dict:
        return {"value": self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)}

    def do_peer(self, _: str) -> dict:
        return {"address": self.sock.getpeername()[0]}

    def do_fork_child(self, steps: str) -> dict:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self.run(steps.split(","))
            os._exit(0)
        return {"status": os.waitpid(child, 0)[1]}

    def do_exec_child(self, steps: str) -> dict:
        words = [sys.executable, __file__, f"inherit={self.sock.fileno()}", *steps.split(",")]
        return {"status": subprocess.run(words, pass_fds=[self.sock.fileno()], check=False).returncode}

    def do_inherit(self, number: str) -> None:
        self.sock = socket.socket(fileno=int(number))

    def do_go(self, _: str) -> None:
        sys.stdin.readline()


if __name__ == "__main__":
    Runner().run(sys.argv[1:])
