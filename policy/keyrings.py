"""The [keyring.*] tables: which files hold an identity and the trust in others, and whether we can read them."""

from collections.abc import Mapping
from pathlib import Path

from ktls.errors import PolicyError
from policy.checks import Check, Node, each, of_text, text
from policy.files import readable
from policy.identities import SYSTEM, Keyring, SniEntry
from policy.names import certificate_name
from policy.problems import quote

SNI_MAX = 1024  # certificates of one keyring


def read_keyrings(root: Node, base: Path, *, files: bool = True) -> dict[str, Keyring]:
    """Read all keyrings.

    Args:
        root: the value of "keyring".
        base: the absolute directory that relative paths start from.
        files: see whether those named can be read.

    Returns:
        By name. A keyring with problems is there too, so that rules that use it are not said to dangle.

    Raises:
        PolicyError: it is no table of tables.
    """
    checks = _checks(base, files=files)
    keyrings: dict[str, Keyring] = {}
    for name, value in root.table().items():
        node = root.child(name, value=value).called(f"[keyring.{name}]" if name.isprintable() else "[keyring]")
        try:
            values = node.read(checks)
        except PolicyError as error:
            node.problem(f"{error.message}; a keyring is written [keyring.NAME]")
            values = {}
        else:
            _check_together(node)
        keyrings[name] = Keyring(name, **values)  # type: ignore[arg-type]  # the table of checks has the fields' types
    return keyrings


def _checks(base: Path, *, files: bool) -> Mapping[str, Check]:
    # A file that cannot be read is still named, so that nothing is said to be missing as well.
    def file(node: Node, *, directory: bool = False) -> Path:
        path = base / text(node)
        try:
            if files:
                readable(path, directory=directory)
        except PolicyError as error:
            node.problem(error.message)
        return path

    def trust(node: Node) -> str:
        return SYSTEM if node.value == SYSTEM else str(file(node, directory=True))

    entry: Mapping[str, Check] = {
        "names": each(of_text(certificate_name), least=1),
        "certificate": file,
        "private_key": file,
    }

    def sni(node: Node) -> tuple[SniEntry, ...]:
        return _read_sni(node, entry)

    return {
        "certificate": file,
        "private_key": file,
        "pkcs12": file,
        "password_file": file,
        "trust": each(trust, least=1),
        "crl": each(file),
        "sni": sni,
    }


def _read_sni(node: Node, checks: Mapping[str, Check]) -> tuple[SniEntry, ...]:
    if not isinstance(node.value, list):
        raise PolicyError("is not a list of tables; each is written [[keyring.NAME.sni]]")
    if len(node.value) > SNI_MAX:
        raise PolicyError(f"{len(node.value)} certificates are too many: at most {SNI_MAX}")
    entries: list[SniEntry] = []
    taken: set[str] = set()
    for number, value in enumerate(node.value):
        child = node.child(number, value=value)
        try:
            values = child.read(checks, required=tuple(checks))
        except PolicyError as error:
            child.problem(error.message)
            continue
        if len(values) < len(checks):
            continue
        entry = SniEntry(**values)  # type: ignore[arg-type]  # the table of checks has the fields' types
        for name in entry.names:
            if name in taken:
                child.problem(f"{quote(name)} has a certificate already, and the first would be used", "names")
            taken.add(name)
        entries.append(entry)
    return tuple(entries)


def _check_together(node: Node) -> None:
    """Check what only makes sense with something else."""
    given = node.table()
    for one, other in (("certificate", "private_key"), ("private_key", "certificate")):
        if one in given and other not in given:
            node.problem(f"needs {other} with it", one)
    if "pkcs12" in given and "certificate" in given:
        node.problem("holds certificate and key: leave out either it or certificate and private_key", "pkcs12")
    if "password_file" in given and not {"pkcs12", "private_key"} & given.keys():
        node.problem("opens nothing: it goes with pkcs12 or private_key", "password_file")
    if "sni" in given and not {"pkcs12", "certificate"} & given.keys():
        node.problem(
            "needs a certificate and private_key of the keyring's own, for clients that ask for no name", "sni"
        )
