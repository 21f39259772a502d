"""What can go wrong with the policy database, beside a policy that is wrong (PolicyError)."""

import errno as _errno

from ktls.errors import ConfigError, SystemFault


class Conflict(ConfigError):
    """Somebody else committed in the meantime: the parent that was named is not the newest revision any more."""

    reason = "conflict"
    errno = _errno.ESTALE
    default_hint = "look at the difference, make the change again on the newest revision, and commit that"


class Unchanged(ConfigError):
    """A commit that says, letter by letter, what its parent says."""

    reason = "unchanged"
    errno = _errno.EEXIST


class NoSuchRevision(ConfigError):
    """A number or hash that no revision, or more than one, has."""

    reason = "no-such-revision"
    errno = _errno.ENOENT
    default_hint = "`ktls policy history` lists them"


class SchemaError(ConfigError):
    """The tables of the database are not those of this program."""

    reason = "schema"
    errno = _errno.EPROTONOSUPPORT


class StoreUnavailable(SystemFault):
    """The database cannot be reached or used now."""

    reason = "store-unavailable"
    errno = _errno.EHOSTUNREACH


class Damaged(SystemFault):
    """What is stored is not what its hash says."""

    reason = "damaged"
    errno = _errno.EBADMSG
    default_hint = "somebody went past the database's own guards, or a disk is failing: restore a backup"


class SnapshotError(SystemFault):
    """The last good policy on disk cannot be used, or not be written."""

    reason = "snapshot"
    errno = _errno.EIO
