"""Edits of a policy's text. Each takes a document and returns another; what it is not about stays as it was written.

Whether the result is a policy is looked at when it is committed, so that several edits may go through a state that is
none, as when an action is renamed and then the rules that use it.
"""

from collections.abc import Iterable, Mapping

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ktls.errors import PolicyError
from policy.checks import similar
from policy.problems import quote
from policy.store.pieces import Kind, Piece, join, split


def text_of(document: str, kind: Kind, name: str) -> str:
    """Return how a rule, action or keyring is written, with the comments right above it.

    Raises:
        PolicyError: there is none, or it has no text of its own.
    """
    return _cut(join(piece.text for piece in _parts(document, kind, name)))[0]


def add(document: str, text: str, *, before: str | None = None) -> str:
    """Add a rule, action or keyring.

    Args:
        document: to add to.
        text: of it, as `policy.store.written.write` makes it, or as a person wrote it.
        before: the rule it is put in front of; at the end without.

    Raises:
        PolicyError: the text is none, or has a name that is taken; or there is no rule to put it before.
    """
    new = _only(text)
    if any((piece.kind, piece.name) == (new.kind, new.name) for piece in split(document)):
        raise PolicyError(f"{new.kind} {quote(new.name)} is there already")
    text = _ended(text)
    if before is None:
        return _apart(document) + text
    pieces = split(document)
    place = pieces.index(_parts(document, "rule", before)[0])
    head, tail = join(piece.text for piece in pieces[:place]), join(piece.text for piece in pieces[place:])
    return _apart(head) + _apart(text) + tail


def replace(document: str, kind: Kind, name: str, text: str) -> str:
    """Write a rule, action or keyring anew, in its place.

    Args:
        document: to change.
        kind: of what is replaced.
        name: of what is replaced; the new text may have another, unless that is taken.
        text: the new one, with the comments above it.

    Raises:
        PolicyError: there is no such thing, or the text is not one of this kind, or has a name that is taken.
    """
    old = _parts(document, kind, name)
    new = _only(text)
    if new.kind != kind:
        raise PolicyError(f"{quote(name)} is of the kind {kind}, and the new text is of the kind {new.kind}")
    pieces = split(document)
    if new.name != name and any((piece.kind, piece.name) == (kind, new.name) for piece in pieces):
        raise PolicyError(f"{kind} {quote(new.name)} is there already")
    texts = _without(pieces, old)
    place = pieces.index(old[0])
    texts[place] = _ended(_cut(text)[0]) + _cut(old[0].text)[1]
    return join(texts)


def remove(document: str, kind: Kind, name: str) -> str:
    """Take out a rule, action or keyring, with the comments above it.

    Raises:
        PolicyError: there is none, or it has no text of its own.
    """
    return join(_without(split(document), _parts(document, kind, name)))


def change(document: str, kind: Kind, name: str, values: Mapping[str, object], without: Iterable[str] = ()) -> str:
    """Change single keys of a rule, action or keyring; its other keys and its comments stay as they are.

    Args:
        document: to change.
        kind: of what is changed; "top" with an empty name for the keys at the top.
        name: of what is changed.
        values: the keys to set.
        without: keys to take out; one that is not there is no mistake.

    Raises:
        PolicyError: there is no such thing, or a value is of a type that TOML has not.
    """
    old = _parts(document, kind, name)
    try:
        head, tail = _cut(join(piece.text for piece in old))  # a new key goes before the comments at the end
        whole = tomlkit.parse(head)
        table = whole
        if kind == "rule":
            table = whole["rule"][0]
        elif kind != "top":
            table = whole[kind][name]
        for key in without:
            table.pop(key, None)
        for key, given in values.items():
            table[key] = given
        text = tomlkit.dumps(whole)
    except (TOMLKitError, ValueError, TypeError) as error:
        raise PolicyError(f"{kind} {quote(name)} cannot be changed: {error}") from error
    if kind == "top":
        others = (piece.text for piece in split(document) if piece not in old)
        return join((_ended(text) if tail else text, tail, *others))
    return replace(document, kind, name, text)


def _parts(document: str, kind: Kind, name: str) -> list[Piece]:
    pieces = split(document)
    found = [piece for piece in pieces if (piece.kind, piece.name) == (kind, name)]
    if not found:
        near = similar(name, {piece.name: piece for piece in pieces if piece.kind == kind})
        raise PolicyError(f"there is no {kind} {quote(name)}{f'; did you mean {quote(near)}?' if near else ''}")
    if not any(piece.text for piece in found) and kind != "top":
        header = "[[rule]]" if kind == "rule" else f"[{kind}.{name}]"
        raise PolicyError(f"{kind} {quote(name)} is written inside another table: give it a {header} of its own first")
    return found


def _only(text: str) -> Piece:
    """Return the one piece a text is about."""
    first, *others = split(text)
    if first.data != "{}":
        raise PolicyError("begins with something that is in no rule, action or keyring")
    keys = {(piece.kind, piece.name) for piece in others}
    if len(keys) != 1 or not others[0].text:
        raise PolicyError(f"is {len(keys)} tables, and must be one: [[rule]], [action.NAME] or [keyring.NAME]")
    return others[0]


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _apart(text: str) -> str:
    """End a text with a blank line, unless it has one or is empty."""
    text = _ended(text)
    return text if not text.strip() or text.endswith(("\n\n", "\n\r\n")) else f"{text}\n"


def _cut(text: str) -> tuple[str, str]:
    """Cut off the blank lines and comments at the end, which are about what comes next, or about nothing."""
    lines = text.splitlines(keepends=True)
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return "".join(lines[:end]), "".join(lines[end:])


def _without(pieces: Iterable[Piece], old: Iterable[Piece]) -> list[str]:
    """Return the texts of pieces, and of some only the comments at their end."""
    gone = {piece.key for piece in old}
    tails = ((piece.key in gone, piece.text) for piece in pieces)
    return [_cut(text)[1] if is_gone and "#" in _cut(text)[1] else "" if is_gone else text for is_gone, text in tails]
