"""The policy database: immutable revisions in SQLite or PostgreSQL, which one is in force, and following that.

It needs what `pip install 'ktls[database]'` brings. docs/database.md tells how to use it.
"""

try:
    from policy.store.store import Name, Store, open_store
except ModuleNotFoundError as error:
    if error.name not in ("sqlalchemy", "alembic", "tomlkit"):
        raise
    raise ModuleNotFoundError(
        f"the policy database needs {error.name}: pip install 'ktls[database]'", name=error.name
    ) from error
from policy.store.diff import Change, KeyChange
from policy.store.errors import Conflict, Damaged, NoSuchRevision, SchemaError, StoreUnavailable, Unchanged
from policy.store.given import default_author
from policy.store.records import Activation, Revision

__all__ = [
    "Activation",
    "Change",
    "Conflict",
    "Damaged",
    "KeyChange",
    "Name",
    "NoSuchRevision",
    "Revision",
    "SchemaError",
    "Store",
    "StoreUnavailable",
    "Unchanged",
    "default_author",
    "open_store",
]
