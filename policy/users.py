"""The [[map]] tables: which local user somebody with a certificate is."""

from ktls.errors import PolicyError
from policy.actions import peer_identity
from policy.checks import Node, of_text
from policy.identities import UserMapping
from policy.problems import quote, refuse
from policy.values import user

MAPPINGS_MAX = 10_000


def read_users(root: Node) -> list[UserMapping]:
    """Read the table.

    Args:
        root: the value of "map".

    Returns:
        The mappings in the order of the file; the first that fits counts.

    Raises:
        PolicyError: it is no list of tables, or too long.
    """
    if not isinstance(root.value, list):
        refuse(root.value, "is not a list of mappings; each is written [[map]]")
    if len(root.value) > MAPPINGS_MAX:
        raise PolicyError(f"{len(root.value)} mappings are too many: at most {MAPPINGS_MAX}")
    found: list[UserMapping] = []
    taken: dict[str, int] = {}
    for number, value in enumerate(root.value):
        node = root.child(number, value=value).called(f"[map {number + 1}]")
        try:
            given = node.read(
                {"identity": of_text(peer_identity), "user": of_text(_login_name)}, required=("identity", "user")
            )
        except PolicyError as error:
            node.problem(error.message)
            continue
        if len(given) < 2:
            continue
        one = UserMapping(str(given["identity"]), str(given["user"]))
        if one.identity in taken:
            node.problem(f"{quote(one.identity)} is mapped in line {taken[one.identity]} already", "identity")
        taken.setdefault(one.identity, node.positions.line(node.place))
        found.append(one)
    return found


def _login_name(text: str) -> str:
    name = user(text)
    if not isinstance(name, str):
        refuse(text, "is a number: a mapping names a user by its login name")
    return name
