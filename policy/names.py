"""Host names, program paths and units, from text to data, with wildcards where the language has them.

"*" stands for any run of characters and "?" for any one, dots and slashes included: a rule that protects "/opt/app/*"
protects all that lies below, and nobody has to remember two kinds of star.
"""

import fnmatch
import re

from ktls.errors import PolicyError
from policy.model import Glob
from policy.problems import refuse
from policy.values import address, plain_address

NAME_MAX = 253  # of a host name as text (RFC 1035 section 2.3.4, without the root's dot)
PATH_MAX = 4096  # include/uapi/linux/limits.h
UNIT_MAX = 255  # systemd's UNIT_NAME_MAX

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1123 section 2.1, and "_", which DNS carries
_UNIT_TYPES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")


def glob(text: str) -> Glob:
    """Compile a text with "*" (any run of characters) and "?" (any one).

    Matching takes linear time whatever the text: fnmatch makes atomic groups of the stars.

    >>> glob("/opt/*").matches("/opt/app/bin")
    True
    """
    if "*" not in text and "?" not in text:
        return Glob(text, None)
    return Glob(text, re.compile(fnmatch.translate(text.replace("[", "[[]"))))


def host_name(text: str) -> str:
    """Read a host name.

    Returns:
        In lower case, without the root's dot.

    Raises:
        PolicyError: it is none. An address is none either.

    >>> host_name("DB.Example.")
    'db.example'
    """
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > NAME_MAX or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        hint = "" if text.isascii() else '; write a name beyond ASCII in its "xn--" form'
        refuse(text, f'is not a host name, as "db.example"{hint}')
    return name


def certificate_name(text: str) -> str:
    """Read a host name that may start with "*.", which stands for one label (RFC 6125 section 6.4.3).

    Raises:
        PolicyError: it is none.
    """
    return "*." + host_name(text[2:]) if text.startswith("*.") else host_name(text)


def host_or_address(text: str) -> str:
    """Read a host name or an IP address, in its usual spelling.

    Raises:
        PolicyError: it is neither.
    """
    return plain_address(text) if is_address(text) else host_name(text)


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address, with or without a zone.

    >>> is_address("fe80::1%eth0"), is_address("db.example")
    (True, False)
    """
    try:
        address(text)
    except PolicyError:
        return False
    return True


def remote_name(text: str) -> Glob:
    """Read a host name with wildcards; "*" stands for dots too.

    Raises:
        PolicyError: it is none; for an address the key is `remote`.
    """
    if is_address(text):
        refuse(text, 'is an address: those stand in "remote"')
    name = text.lower().removesuffix(".")
    plain = re.sub(r"[*?]+", "x", name)  # no wildcard makes a label wrong or right
    if len(name) > NAME_MAX or not all(_LABEL.fullmatch(label) for label in plain.split(".")):
        refuse(text, 'is not a host name, as "db.example", with * and ? where you like, as "*.example"')
    return glob(name)


def program(text: str) -> Glob:
    """Read the path of a program with wildcards; "*" stands for slashes too.

    Raises:
        PolicyError: it is not absolute, or has a part that no path of the kernel's has.
    """
    if not text.startswith(("/", "*")) or len(text) > PATH_MAX or "\0" in text:
        refuse(text, 'is not an absolute path, as "/usr/bin/psql", with * and ? where you like, as "/opt/app/*"')
    if "//" in text or {".", ".."} & set(text.split("/")) or text.endswith("/"):
        refuse(text, 'never matches: a program\'s path has no "//", ".", ".." or "/" at its end')
    return glob(text)


def unit(text: str) -> Glob:
    """Read the name of a systemd unit with wildcards.

    Raises:
        PolicyError: no unit can have that name.
    """
    if not 0 < len(text) <= UNIT_MAX or "/" in text or not text.isprintable() or " " in text:
        refuse(text, 'is not a unit, as "nginx.service", with * and ? where you like, as "app@*.service"')
    if not text.endswith((*_UNIT_TYPES, "*", "?")):
        refuse(text, f"never matches: a unit's name ends with its type, one of {', '.join(_UNIT_TYPES)}")
    return glob(text)
