"""Echo every connection in a thread of its own, and print how each ended as the program sees it: echo.py PORT."""

import errno
import json
import signal
import socket
import sys
import threading


def serve(sock: socket.socket) -> None:
    ended = "eof"
    try:
        while data := sock.recv(65536):
            sock.sendall(data)
    except OSError as error:
        ended = errno.errorcode[error.errno or 0]
    try:
        sock.sendall(b"after the end")
        wrote = "ok"
    except OSError as error:
        wrote = errno.errorcode[error.errno or 0]
    sock.close()
    print(json.dumps({"ended": ended, "wrote": wrote}), flush=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
