"""What is in the files that a keyring names, or in any other, told apart without keeping it.

A file is looked at under the name that was given, whatever stands there now: a symbolic link set to another target, a
file renamed over it or written in place are all the same here.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ktls.keyring import MAX_FILE, MAX_FILES, SYSTEM, Keyring

LINKS_MAX = 40
"""Symbolic links on the way to one file, as the kernel counts them."""


def files_of(keyring: Keyring) -> tuple[Path, ...]:
    """List the files that a keyring names, and the directories of trust anchors. The system's store is not ours."""
    named = (keyring.certificate, keyring.private_key, keyring.pkcs12, keyring.password_file, *keyring.crl)
    trusted = (Path(path) for path in keyring.trust if path != SYSTEM)
    more = (path for entry in keyring.sni for path in (entry.certificate, entry.private_key))
    return tuple(dict.fromkeys(path for path in (*named, *trusted, *more) if path is not None))


def content_hash(paths: Iterable[Path]) -> str:
    """Return what changes with the content of any of the files. A file that cannot be read is a content of its own."""
    total = hashlib.sha256()
    for path in paths:
        for file in _members(path):
            total.update(repr(str(file)).encode() + _hash(file))
    return total.hexdigest()


def signature(paths: Iterable[Path]) -> tuple[object, ...]:
    """Return what nearly always changes with the content, without reading it."""
    return tuple(_status(file) for path in paths for file in (path, *_members(path)))


def places(paths: Iterable[Path]) -> frozenset[Path]:
    """Return the directories in which something happens when the files get another content.

    Those are the directory of each file, of each symbolic link on the way to it, and the directories of trust anchors.
    """
    found: set[Path] = set()
    for path in paths:
        found.update(_places(path.absolute()))
        if path.is_dir():
            found.add(path.resolve())
    return frozenset(directory for directory in found if directory.is_dir())


def _places(path: Path) -> Iterator[Path]:
    for _ in range(LINKS_MAX):
        link = next((one for one in (*reversed(path.parents), path) if one.is_symlink()), None)
        if link is None:
            yield path.parent
            return
        yield link.parent
        try:
            path = link.parent / link.readlink() / path.relative_to(link)
        except OSError:  # it has just been replaced: that will be told
            return
        path = Path(_without_dots(path))


def _without_dots(path: Path) -> str:
    """Take "a/.." out of a path, from the left, as long as what is left of it are no links: `_places` sees to that."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and not Path(*parts).is_symlink():
            parts = parts[:-1] or parts
        else:
            parts.append(part)
    return str(Path(*parts))


def _members(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_file())[:MAX_FILES] if path.is_dir() else [path]
    except OSError:
        return [path]


def _hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_FILE + 1)).digest()
    except OSError as error:
        return f"errno {error.errno}".encode()


def _status(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
