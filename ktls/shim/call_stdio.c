/* stdio: libc reads and writes inside itself, past every wrapper. A stream on a TLS descriptor gets our own instead. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "real.h"

static ssize_t stream_read(void *cookie, char *buffer, size_t size)
{
    return read((int)(intptr_t)cookie, buffer, size);
}

/* fopencookie wants 0 for an error; a short count would be taken for one. */
static ssize_t stream_write(void *cookie, const char *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t sent = write((int)(intptr_t)cookie, buffer + done, size - done);
        if (sent < 0)
            return 0;
        done += (size_t)sent;
    }
    return (ssize_t)done;
}

/* libc takes ESPIPE, and nothing else, for "not seekable": without it flushing a stream that has read ahead fails. */
static int stream_seek(void *cookie, off64_t *offset, int whence)
{
    (void)cookie, (void)offset, (void)whence;
    errno = ESPIPE;
    return -1;
}

static int stream_close(void *cookie) { return close((int)(intptr_t)cookie); }

static FILE *open_stream(int fd, const char *mode)
{
    const cookie_io_functions_t calls = {
        .read = stream_read, .write = stream_write, .seek = stream_seek, .close = stream_close};
    FILE *stream = fopencookie((void *)(intptr_t)fd, mode, calls);
#ifdef __GLIBC__
    if (stream)
        stream->_fileno = fd; /* fileno() must answer */
#endif
    return stream;
}

EXPORT FILE *fdopen(int fd, const char *mode)
{
    return likely(!is_tls(slot_of(fd))) ? real(fdopen)(fd, mode) : open_stream(fd, mode);
}

EXPORT int fclose(FILE *stream)
{
    int saved = errno;
    int fd = stream ? fileno(stream) : -1;
    slot_t slot = fd >= 0 ? slot_of(fd) : PLAIN;
    errno = saved;
    int result = real(fclose)(stream);
    /* libc's own close() cannot be seen; a cookie stream has closed through ours already. */
    if (is_tls(slot) && is_tls(slot_of(fd)) && real(fcntl)(fd, F_GETFD) < 0)
        forget(fd);
    return result;
}

/* --- dprintf(): it writes inside libc, past write() ------------------------------------------------------------------- */

extern int __vasprintf_chk(char **text, int flag, const char *format, va_list arguments);
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments);
EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...);

static int print(int fd, int flag, const char *format, va_list arguments)
{
    char *text = NULL;
    int length = __vasprintf_chk(&text, flag, format, arguments);
    for (int done = 0; done < length;) {
        ssize_t sent = write(fd, text + done, (size_t)(length - done));
        if (sent < 0)
            length = -1;
        else
            done += (int)sent;
    }
    int saved = errno;
    free(text);
    errno = saved;
    return length;
}

EXPORT int vdprintf(int fd, const char *restrict format, va_list arguments)
{
    return is_tls(slot_of(fd)) ? print(fd, 0, format, arguments) : real(vdprintf)(fd, format, arguments);
}

EXPORT int dprintf(int fd, const char *restrict format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vdprintf(fd, format, arguments);
    va_end(arguments);
    return length;
}

/* The fortified forms check the format wherever they write. */
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments)
{
    return print(fd, flag, format, arguments);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = print(fd, flag, format, arguments);
    va_end(arguments);
    return length;
}

/* --- standard streams ------------------------------------------------------------------------------------------------- */

/* A program started by inetd or a shell has connections for standard streams, some whose handshake nobody waited for yet.
 * What libc writes by itself (error messages of perror) must find the socket there and not the gate. */
void stdio_start(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        while (is_tls(slot_of(fd)) && slot_state(gate_wait(fd, true, 0)) == GATED)
            continue;
#ifdef __GLIBC__ /* elsewhere the names are constants */
    FILE *stream;
    if (is_tls(slot_of(STDIN_FILENO)) && (stream = open_stream(STDIN_FILENO, "r")))
        stdin = stream;
    if (is_tls(slot_of(STDOUT_FILENO)) && (stream = open_stream(STDOUT_FILENO, "w")))
        stdout = stream;
#endif
}
