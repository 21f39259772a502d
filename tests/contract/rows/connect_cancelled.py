"""Threads that are cancelled while they wait."""

import socket
import subprocess
from pathlib import Path

from tests.contract.row import row
from tests.contract.world import HOST, World

PROGRAM = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd;
static struct sockaddr_in address = {.sin_family = AF_INET};

static void *connecting(void *unused) { (void)unused; connect(fd, (void *)&address, sizeof address); return NULL; }
static void *accepting(void *unused) { (void)unused; accept(fd, NULL, NULL); return NULL; }
static void *reading(void *unused) { char c; (void)unused; read(fd, &c, 1); return NULL; }
static void *writing(void *unused) { (void)unused; while (write(fd, "yyyyyyyy", 8) > 0) continue; return NULL; }

/* Starts `work`, cancels it a little later, says whether it ended so. */
static void cancel(void *(*work)(void *), const char *what)
{
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, work, NULL);
    usleep(100000);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("%s %s\n", what, result == PTHREAD_CANCELED ? "cancelled" : "went on");
    fflush(stdout);
}

int main(int count, char **words)
{
    char line[100] = "";
    (void)count;
    address.sin_port = htons((unsigned short)atoi(words[2]));
    inet_aton("127.0.0.1", &address.sin_addr);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (strcmp(words[1], "connect") == 0) {
        cancel(connecting, "connect");
        printf("then %d\n", close(fd));
        return 0;
    }
    int listener = fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    bind(fd, (void *)&address, sizeof address);
    listen(fd, 5);
    cancel(accepting, "accept");
    puts("ready");
    fflush(stdout);
    fd = accept(listener, NULL, NULL);
    cancel(reading, "read");
    fgets(line, sizeof line, stdin);
    printf("then %zd", read(fd, line, 5));
    printf(" %zd\n", write(fd, line, 5));
    fflush(stdout);
    cancel(writing, "write");
    return close(fd);
}
"""


def build(folder: Path) -> str:
    source, program = folder / "cancel.c", folder / "cancel"
    source.write_text(PROGRAM)
    subprocess.run(["cc", "-D_GNU_SOURCE", "-o", str(program), str(source), "-lpthread"], check=True)
    return str(program)


@row("pthread_cancel() of a thread in connect() to a server that does not answer", "the thread ends; close() gives 0")
def connecting(world: World) -> list:
    with world.listen(backlog=0) as listener, socket.socket() as filler:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        result = subprocess.run([build(world.folder), "connect", str(world.both)], stdout=subprocess.PIPE, check=True)
        return result.stdout.decode().splitlines()


@row(
    "pthread_cancel() of a thread in accept(); in read() before the handshake is done; in write() to a peer that does "
    "not read",
    "each thread ends; accept(), read() and write() work in another one afterwards",
)
def serving(world: World) -> list:
    words = [build(world.folder), "serve", str(world.inbound)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        seen = [program.stdout.readline(), program.stdout.readline()]
        with world.peer(socket.create_connection((HOST, world.inbound))) as peer:
            seen.append(program.stdout.readline())
            if peer.tls:
                peer.tls.handshake()
            peer.send(b"bytes")
            program.stdin.write("go on\n")
            program.stdin.flush()
            seen += [peer.receive(5).decode(), program.stdout.readline(), program.stdout.readline()]
        return [word.strip() for word in seen]
