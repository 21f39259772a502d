"""What people give with a commit: who, why, and a text; seen to be such before anything is stored."""

import getpass
import os
from pathlib import Path

from ktls.errors import PolicyError, UsageError
from policy.document import FILE_MAX
from policy.problems import quote
from policy.store import pem

AUTHOR_MAX = 200  # characters
MESSAGE_MAX = 10_000


def default_author() -> str:
    """Return whoever runs this, as user@host."""
    return f"{getpass.getuser()}@{os.uname().nodename}"


def check_author(author: str) -> str:
    """Return an author without the spaces around it.

    Raises:
        UsageError: it is none, or not one line.
    """
    author = author.strip()
    if not author or len(author) > AUTHOR_MAX or not author.isprintable():
        raise UsageError(f"{quote(author)} is no author: 1 to {AUTHOR_MAX} characters on one line")
    if pem.MARK in author:
        raise UsageError("the author holds PEM, and keys never go into the database")
    return author


def check_message(message: str) -> str:
    """Return a message without the blank lines around it.

    Raises:
        UsageError: it is none, too long, or cannot be printed.
    """
    message = message.strip()
    if not message or len(message) > MESSAGE_MAX:
        raise UsageError(f"the message has {len(message)} characters, and says why in 1 to {MESSAGE_MAX}")
    if pem.MARK in message:
        raise UsageError("the message holds PEM, and keys never go into the database")
    if "\0" in message or not all(char.isprintable() or char in "\n\t" for char in message):
        raise UsageError("the message has characters that cannot be printed")
    return message


def encode(document: str, file: Path) -> bytes:
    """Return a document as a file would hold it.

    Raises:
        PolicyError: it is too long, or no UTF-8.
    """
    try:
        data = document.encode()
    except UnicodeEncodeError as error:
        line = document.count("\n", 0, error.start) + 1
        raise PolicyError(f"{file}:{line}: is not UTF-8") from error
    if len(data) > FILE_MAX:
        raise PolicyError(f"{file}: has {len(data)} bytes: at most {FILE_MAX} are permitted")
    if data.startswith(b"\xef\xbb\xbf"):
        raise PolicyError(f"{file}:1: starts with a byte order mark: save it as UTF-8 without one")
    return data
