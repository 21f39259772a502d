"""Sends a file from one thread and saves what comes back in another: threaded_client.py PORT FILE SAVED."""

import shutil
import socket
import sys
import threading
from pathlib import Path


def send(connection: socket.socket, path: Path) -> None:
    with path.open("rb") as file:
        connection.sendfile(file)
    connection.shutdown(socket.SHUT_WR)


port, path, saved = sys.argv[1:]
with socket.create_connection(("127.0.0.1", int(port))) as connection:
    sender = threading.Thread(target=send, args=(connection, Path(path)))
    sender.start()
    with connection.makefile("rb") as stream, Path(saved).open("wb") as file:
        shutil.copyfileobj(stream, file)
    sender.join()
