"""A client that speaks TLS itself, without checking anything.

usage: tls_client.py PORT

It says "hello", reads to the end, and prints one JSON line: what came, or the errno.
"""

import json
import socket
import ssl
import sys


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock,
            context.wrap_socket(sock, suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(b"hello")
            result = {"got": tls.recv(100).decode()}
    except OSError as error:
        result = {"error": type(error).__name__}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
