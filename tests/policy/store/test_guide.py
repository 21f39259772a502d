"""docs/database.md does what it says."""

import queue
import re
from pathlib import Path

import psycopg
import pytest

from policy.store import StoreUnavailable, open_store
from policy.store.follow import Follower

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/database.md").read_text()
POLICY = 'version = 1\n[[rule]]\nname = "web out"\nverdict = "deny" # so far\n'


def test_the_example_runs(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(code.replace("/var/lib/ktls", str(tmp_path)), {"text": POLICY, "Path": Path})
    assert capsys.readouterr().out.startswith("rule web out changed (KeyChange(key='priority', old=None, new=50),)")
    with open_store(f"{tmp_path}/policy.db") as store:
        active = store.active()
        assert active is not None
        assert active.revision.number == 1
        assert "# so far" in store.document(2)


def grants(to, schema):
    """The statements of the guide for one role."""
    statements = re.findall(rf"GRANT [^;`]+?\bTO\s+{to}\b", GUIDE)
    assert statements
    return [re.sub(r"\s+", " ", one).replace("SCHEMA public", f"SCHEMA {schema}") for one in statements]


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.slow
def test_the_grants_are_enough_and_no_more(store, url, postgresql):
    (schema,) = re.findall(r"search_path%3D(\w+)", url)
    with psycopg.connect(postgresql.url(), autocommit=True) as owner:
        owner.execute(f"SET search_path = {schema}")
        for role in ("agents", "admins"):
            owner.execute(f"CREATE ROLE {role} LOGIN")
            owner.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            for statement in grants(role, schema):
                owner.execute(statement)
    delivered: queue.Queue = queue.Queue()
    follower = Follower(url.replace("//ktls@", "//agents@"), snapshot=None, deliver=delivered.put, say=print)
    try:
        follower.start()
        with open_store(url.replace("//ktls@", "//admins@")) as admins:
            first = admins.commit(POLICY, author="ann", message="one", parent=None)
            admins.commit(POLICY.replace("deny", "clear"), author="ann", message="two", parent=first)
            admins.activate(2, "ann")
        assert delivered.get(timeout=60).number == 2
    finally:
        follower.stop()
    with open_store(url.replace("//ktls@", "//agents@")) as agents:
        assert agents.document(1) == POLICY
        with pytest.raises(StoreUnavailable, match="permission denied"):
            agents.activate(1, "eve")
    with psycopg.connect(postgresql.url(), autocommit=True) as owner:
        for role in ("agents", "admins"):
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")
