"""Each errno of each kTLS call has its leaf, and what is not TLS's business passes."""

import errno

import pytest

from ktls import kernel_errors
from ktls.errors import BadRecord, KernelError, ProtocolError, RecordOverflow
from ktls.kernel_errors import ATTACH, INSTALL, QUERY, RECEIVE, SEND, translate


def name(number):
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number]


ROWS = [
    (ATTACH, errno.ENOENT, kernel_errors.UlpUnavailable),
    (ATTACH, errno.ENOTCONN, kernel_errors.NotEstablished),
    (ATTACH, errno.EEXIST, kernel_errors.AlreadyAttached),
    (ATTACH, errno.EINVAL, kernel_errors.AttachConflict),
    (ATTACH, errno.ENOPROTOOPT, kernel_errors.NotTcp),
    (ATTACH, errno.EOPNOTSUPP, kernel_errors.NotTcp),
    (ATTACH, errno.ENOMEM, kernel_errors.OutOfMemory),
    (ATTACH, errno.EPERM, kernel_errors.KernelRefused),
    (INSTALL, errno.EINVAL, kernel_errors.KeysRefused),
    (INSTALL, errno.EBUSY, kernel_errors.RekeyUnsupported),
    (INSTALL, errno.ENOENT, kernel_errors.CipherUnavailable),
    (INSTALL, errno.ENOPROTOOPT, kernel_errors.NotAttached),
    (INSTALL, errno.EOPNOTSUPP, kernel_errors.NotTcp),
    (INSTALL, errno.ENOMEM, kernel_errors.OutOfMemory),
    (INSTALL, errno.EFAULT, kernel_errors.KernelRefused),
    (QUERY, errno.EBUSY, kernel_errors.NotKeyed),
    (QUERY, errno.ENOPROTOOPT, kernel_errors.NotAttached),
    (QUERY, errno.EOPNOTSUPP, kernel_errors.NotAttached),
    (RECEIVE, errno.EBADMSG, BadRecord),
    (RECEIVE, errno.EMSGSIZE, RecordOverflow),
    (RECEIVE, errno.EINVAL, ProtocolError),
    (RECEIVE, errno.EKEYEXPIRED, kernel_errors.RekeyNeeded),
    (SEND, errno.EBADMSG, kernel_errors.SendBroken),
    (SEND, errno.EINVAL, kernel_errors.OptionUnsupported),
    (SEND, errno.EOPNOTSUPP, kernel_errors.OptionUnsupported),
]
LEAVES = [leaf for leaf in vars(kernel_errors).values() if isinstance(leaf, type) and issubclass(leaf, KernelError)]
LEAVES.remove(KernelError)


@pytest.mark.parametrize(
    ("table", "number", "leaf"), ROWS, ids=[f"{leaf.__name__}-{name(number)}" for _, number, leaf in ROWS]
)
def test_each_errno_has_its_leaf(table, number, leaf):
    with pytest.raises(leaf) as caught, translate("trying", table):
        raise OSError(number, "as the kernel says")
    assert type(caught.value) is leaf
    assert caught.value.message == f"trying: {name(number)}"


def test_no_row_of_the_tables_is_left_out_here():
    tables = (ATTACH, INSTALL, QUERY, RECEIVE, SEND)
    known = {(tables.index(table), number) for table, number, leaf in ROWS if leaf is not kernel_errors.KernelRefused}
    assert known == {(index, number) for index, table in enumerate(tables) for number in table}


@pytest.mark.parametrize("leaf", LEAVES, ids=[leaf.__name__ for leaf in LEAVES])
def test_each_leaf_says_what_to_do(leaf):
    assert leaf("x").hint
    assert leaf.errno > 0


def test_reasons_are_told_apart():
    assert len({leaf.reason for leaf in LEAVES}) == len(LEAVES)


def test_a_missing_module_is_named():
    assert "modprobe tls" in kernel_errors.UlpUnavailable("x").hint


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ECONNRESET, errno.EPIPE, errno.EIO])
@pytest.mark.parametrize("table", [RECEIVE, SEND], ids=["receive", "send"])
def test_errors_of_tcp_pass(table, number):
    with pytest.raises(OSError) as caught, translate("trying", table, total=False):  # noqa: PT011 - errno follows
        raise OSError(number, "as the kernel says")
    assert caught.value.errno == number


def test_other_exceptions_pass():
    with pytest.raises(ZeroDivisionError), translate("trying", ATTACH):
        raise ZeroDivisionError


def test_an_error_without_a_number_is_not_lost():
    with pytest.raises(kernel_errors.KernelRefused), translate("trying", ATTACH):
        raise OSError
