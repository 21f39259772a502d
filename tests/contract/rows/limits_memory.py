"""Limits on memory and stack."""

import resource
import socket
import subprocess
import sys
from pathlib import Path

from tests.contract.row import row
from tests.contract.rows.processes_exec import compiled
from tests.contract.world import HOST, World, child


@row("a megabyte over a connection made with 8 MiB of address space left (RLIMIT_AS)", "works")
def little_memory(world: World) -> list:
    with world.listen(world.inbound) as listener:
        peer = world.peer(socket.create_connection((HOST, world.inbound)))

        def work() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (8 << 20), resource.RLIM_INFINITY))
            server, _ = listener.accept()
            for _ in range(64):
                server.sendall(b"m" * 16384)

        with child(work):
            if peer.tls:
                peer.tls.handshake()
            return [len(peer.receive(1 << 20)), peer.read_to_end()]


SMALL_STACK = r"""
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
static char *none[] = {NULL};
static const char *way;
static int number;
static void *work(void *unused)
{
    char *words[] = {"true", NULL};
    int status = 0;
    pid_t pid = 0;
    if (!strcmp(way, "posix_spawn"))
        posix_spawn(&pid, "/bin/true", NULL, NULL, words, none);
    else if (!strcmp(way, "system"))
        return (void *)(long)system("exit 5");
    else if (!strcmp(way, "popen"))
        return (void *)(long)pclose(popen("exit 6", "r"));
    else if (!strcmp(way, "accept")) {
        char byte;
        int connection = accept(number, NULL, NULL);
        return (void *)(long)(recv(connection, &byte, 1, 0) + send(connection, &byte, 1, 0) + close(connection));
    } else if ((pid = fork()) == 0) {
        if (!strcmp(way, "execl"))
            execl("/bin/true", "true", NULL);
        if (!strcmp(way, "execlp"))
            execlp("true", "true", NULL);
        if (!strcmp(way, "execve"))
            execve("/bin/true", words, none);
        _exit(errno);
    }
    waitpid(pid, &status, 0);
    return (void *)(long)status;
}
int main(int count, char **words)
{
    pthread_t thread;
    pthread_attr_t attributes;
    void *result;
    way = words[1];
    number = atoi(words[2]);
    pthread_attr_init(&attributes);
    if (pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN))
        return 1;
    if (pthread_create(&thread, &attributes, work, NULL))
        return 2;
    pthread_join(thread, &result);
    printf("%s %ld\n", way, (long)result);
    return 0;
}
"""


@row("execl(), execlp(), execve(), posix_spawn(), system(), popen() in a thread with PTHREAD_STACK_MIN", "they work")
def small_stacks(world: World) -> list:
    program = compiled(world, SMALL_STACK)
    seen: list = []
    for way in ("execl", "execlp", "execve", "posix_spawn", "system", "popen"):
        done = subprocess.run([program, way, "0"], capture_output=True, text=True, check=False)
        seen.append((done.returncode, done.stdout))
    return seen


@row("accept(), recv(), send() and close() in a thread with PTHREAD_STACK_MIN", "they work")
def small_stack_connection(world: World) -> list:
    program = compiled(world, SMALL_STACK)
    with world.listen(world.inbound) as listener:
        words = [str(program), "accept", str(listener.fileno())]
        with subprocess.Popen(words, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, text=True) as running:
            peer = world.peer(socket.create_connection((HOST, world.inbound)))
            if peer.tls:
                peer.tls.handshake()
            peer.send(b"x")
            seen = [peer.receive(1).decode(), peer.read_to_end()]
            assert running.stdout
            return [*seen, running.stdout.read(), running.wait()]


@row("RLIMIT_STACK of 128 KiB, then exec of Python that connects", "works")
def small_main_stack(world: World) -> list:
    code = (
        "import os, resource, socket, sys\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (1 << 17, resource.RLIM_INFINITY))\n"
        "again = 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).send(b\"small\")'\n"
        "os.execvp(sys.executable, [sys.executable, '-c', again, *sys.argv[1:]])\n"
    )
    with world.listen() as listener:
        with subprocess.Popen([sys.executable, "-c", code, HOST, str(world.both)]) as running:
            server, _ = listener.accept()
            seen = [server.recv(5).decode(), server.recv(5).decode()]
        return [*seen, running.returncode]
