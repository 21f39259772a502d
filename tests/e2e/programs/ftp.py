"""A small FTP server (RFC 959, RFC 2428) that knows no TLS, and a client of the standard library's.

usage: ftp.py serve PORT FILE one|fork      serves one client; `fork`: in a child, as inetd and many servers do
       ftp.py fetch PORT passive|active FILE   fetches, sends back, and says whether both were the file

The server accepts and connects late, as vsftpd and proftpd do: passive data connections after the command that needs
them, active ones before the 150 that tells the client to accept.
"""

import ftplib
import io
import os
import socket
import sys
from pathlib import Path


def serve(port: int, file: Path, how: str) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        control, _ = listener.accept()
    if how == "fork" and os.fork():
        control.close()
        os.wait()
        return
    with control:
        session(control, file)


def session(control: socket.socket, file: Path) -> None:
    def say(line: str) -> None:
        control.sendall(f"{line}\r\n".encode())

    passive: socket.socket | None = None
    target = ("", 0)

    def data() -> socket.socket:
        if passive is None:
            return socket.create_connection(target)
        with passive:
            return passive.accept()[0]

    say("220 ready")
    for line in control.makefile("rb"):
        verb, _, rest = line.decode().strip().partition(" ")
        match verb.upper():
            case "USER" | "TYPE":
                say("230 as you like")
            case "PASV":
                passive = socket.create_server(("127.0.0.1", 0))
                high, low = divmod(passive.getsockname()[1], 256)
                say(f"227 Entering Passive Mode (127,0,0,1,{high},{low})")
            case "PORT":
                *host, high, low = rest.split(",")
                passive, target = None, (".".join(host), int(high) * 256 + int(low))
                say("200 noted")
            case "RETR":
                with data() as connection:
                    say("150 here it comes")
                    connection.sendall(file.read_bytes())
                say("226 done")
            case "STOR":
                with data() as connection:
                    say("150 go on")
                    file.with_name(rest).write_bytes(connection.makefile("rb").read())
                say("226 done")
            case "QUIT":
                say("221 bye")
                return
            case _:
                say("502 not here")


def fetch(port: int, how: str, file: Path) -> None:
    client = ftplib.FTP()
    client.set_pasv(how == "passive")
    client.connect("127.0.0.1", port)
    client.login()
    got = io.BytesIO()
    client.retrbinary("RETR file", got.write)
    client.storbinary("STOR back", io.BytesIO(got.getvalue()))
    client.quit()
    same = got.getvalue() == file.read_bytes() == file.with_name("back").read_bytes()
    print("both whole" if same else "not whole", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        fetch(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
