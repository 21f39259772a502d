"""What Linux answers to kTLS calls: one named error per errno and call, each with what to do about it.

The tables at the end are the whole translation, one per call, and `translate` is the one place that reads them. Errors
of TCP (ECONNRESET, EPIPE, EAGAIN) are in none of them and stay the OSErrors that they are: they say nothing about TLS.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ktls.errors import BadRecord, KernelError, KtlsError, ProtocolError, RecordOverflow


class UlpUnavailable(KernelError):
    """The kernel has no TLS, or its module is not loaded and this process may not load it."""

    reason = "no-kernel-tls"
    errno = errno.EPROTONOSUPPORT
    default_hint = (
        "run `modprobe tls` as root (for every boot: echo tls > /etc/modules-load.d/tls.conf); "
        "if there is no such module the kernel was built without CONFIG_TLS: use engine relay"
    )


class NotEstablished(KernelError):
    """The connection is not ESTABLISHED: still connecting, listening, or half-closed already."""

    reason = "not-established"
    errno = errno.ENOTCONN
    default_hint = "attach when connect() has completed, or right after accept(), before either side has shut down"


class AlreadyAttached(KernelError):
    """The socket has an upper layer protocol, which can never be taken off."""

    reason = "already-attached"
    default_hint = "somebody attached before us: the program itself, or another agent; serve it only once"


class NotTcp(KernelError):
    """Not a socket that can carry kTLS: MPTCP, UDP, AF_UNIX."""

    reason = "not-tcp"
    errno = errno.EPROTONOSUPPORT
    default_hint = "only plain TCP can: switch MPTCP off (sysctl net.mptcp.enabled=0), or use engine relay"


class AttachConflict(KernelError):
    """Something else in the kernel decrypts on this socket already, such as PSP (Linux 7)."""

    reason = "attach-conflict"
    default_hint = "a connection that PSP encrypts needs no TLS: exempt it by a rule with verdict clear"


class NotAttached(KernelError):
    """A kTLS option on a socket without the upper layer protocol."""

    reason = "not-attached"
    default_hint = "call attach() first"


class KeysRefused(KernelError):
    """The kernel does not take this version and cipher, or not beside the keys of the other direction."""

    reason = "keys-refused"
    default_hint = (
        "`ktls probe` lists what this kernel takes, and both directions need the same version and cipher; otherwise "
        "the socket is in a sockmap (Cilium, a service mesh), which excludes kTLS: use engine relay"
    )


class CipherUnavailable(KernelError):
    """The kernel has kTLS, but not the cipher's algorithm."""

    reason = "cipher-unavailable"
    default_hint = "run `modprobe -a gcm ccm chacha20poly1305` as root, or leave the cipher out of the rule"


class RekeyUnsupported(KernelError):
    """The direction has keys, and this kernel (before 6.14), or TLS 1.2, cannot change them."""

    reason = "rekey-unsupported"
    default_hint = "close the connection; for peers that send KeyUpdate use Linux 6.14 or later, or engine relay"


class NotKeyed(KernelError):
    """The direction has no keys yet: what was sent would go out in clear."""

    reason = "not-keyed"
    default_hint = "call install_tx() and install_rx() first"


class RekeyNeeded(KernelError):
    """The peer's KeyUpdate was read; nothing can be received before the next keys are installed (Linux 6.14)."""

    reason = "rekey-needed"
    default_hint = "install_rx(sock, keys.updated())"


class SendBroken(KernelError):
    """The kernel sends nothing more: a record did not decrypt, or the sequence numbers are used up."""

    reason = "send-broken"
    default_hint = "close the connection"


class OptionUnsupported(KernelError):
    """A kTLS option or flag that this kernel does not know."""

    reason = "option-unsupported"
    errno = errno.EOPNOTSUPP
    default_hint = "`ktls probe` tells what this kernel can do"


class OutOfMemory(KernelError):
    """The kernel has no memory for the connection's TLS."""

    reason = "no-memory"
    errno = errno.ENOMEM
    default_hint = "try again later, or raise the memory limit of the control group"


class KernelRefused(KernelError):
    """An errno that kTLS is not known to give: a security module or seccomp filter, say."""

    reason = "kernel-refused"
    default_hint = "look for seccomp filters and security modules (dmesg, audit log)"


Table = Mapping[int, type[KtlsError]]
"""What each errno of one call means."""

ATTACH: Table = {  # net/ipv4/tcp_ulp.c: tcp_set_ulp; net/tls/tls_main.c: tls_init
    errno.ENOENT: UlpUnavailable,
    errno.ENOTCONN: NotEstablished,
    errno.EEXIST: AlreadyAttached,
    errno.EINVAL: AttachConflict,
    errno.ENOPROTOOPT: NotTcp,
    errno.EOPNOTSUPP: NotTcp,
    errno.ENOMEM: OutOfMemory,
}
INSTALL: Table = {  # net/tls/tls_main.c: do_tls_setsockopt_conf
    errno.EINVAL: KeysRefused,
    errno.EBUSY: RekeyUnsupported,
    errno.ENOENT: CipherUnavailable,
    errno.ENOPROTOOPT: NotAttached,
    errno.EOPNOTSUPP: NotTcp,
    errno.ENOMEM: OutOfMemory,
}
QUERY: Table = {  # net/tls/tls_main.c: do_tls_getsockopt_conf
    errno.EBUSY: NotKeyed,
    errno.ENOPROTOOPT: NotAttached,
    errno.EOPNOTSUPP: NotAttached,  # what IP says to options of a level that is not its own, when it is asked
}
RECEIVE: Table = {  # net/tls/tls_sw.c: tls_sw_recvmsg; tls_rx_msg_size
    errno.EBADMSG: BadRecord,
    errno.EMSGSIZE: RecordOverflow,
    errno.EINVAL: ProtocolError,
    errno.EKEYEXPIRED: RekeyNeeded,
}
SEND: Table = {  # net/tls/tls_sw.c: tls_sw_sendmsg
    errno.EBADMSG: SendBroken,
    errno.EINVAL: OptionUnsupported,
    errno.EOPNOTSUPP: OptionUnsupported,
}

_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # errorcode calls it ENOTSUP, which no kernel source does


@contextmanager
def translate(what: str, table: Table, *, total: bool = True) -> Iterator[None]:
    """Run a kernel call, and raise what its errno means.

    Args:
        what: names the call in the message; never key material.
        table: the call's.
        total: an errno that is not in the table becomes `KernelRefused`; otherwise its OSError passes.

    Raises:
        KtlsError: the table's leaf for the errno.
        OSError: as it came, when it is not in the table and `total` is off.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        leaf = table.get(number, KernelRefused if total else None)
        if leaf is None:
            raise
        raise leaf(f"{what}: {_NAMES.get(number, number)}") from error
