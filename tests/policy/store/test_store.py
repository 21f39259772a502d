import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from ktls.errors import PolicyError, UsageError
from policy.store import Conflict, Damaged, NoSuchRevision, SchemaError, StoreUnavailable, Unchanged, open_store
from policy.store.connect import make_engine, read_url
from tests.policy.store.test_pieces import POLICIES

FIRST = '# Ours\r\nversion = 1   # of the language\n\n[[rule]]\nname = "web"\nverdict = "deny"'
SECOND = FIRST.replace("deny", "clear") + '\n\n[[rule]]\nname = "mail"\nverdict = "deny"\n'


@pytest.fixture
def first(store):
    return store.commit(FIRST, author="ann@host", message="begin", parent=None)


@pytest.fixture
def second(store, first):
    return store.commit(SECOND, author="bob@host", message="mail\n\nbecause", parent=first)


def test_a_new_store_is_empty(store):
    assert (store.head(), store.active(), store.history(), store.activations()) == (None, None, [], [])
    assert store.version() == "0001"


def test_a_revision_is_what_was_committed(store, first, second):
    assert store.head() == second
    assert store.history() == [second, first]
    assert store.history(1) == [second]
    assert (first.number, first.parent, first.author, first.message) == (1, None, "ann@host", "begin")
    assert (second.number, second.parent, second.parent_hash) == (2, 1, first.hash)
    assert datetime.now(UTC) >= second.time >= first.time
    assert first.base == Path("/etc/ktls")


def test_the_document_comes_back_letter_by_letter(store, first, second):
    assert store.document(first) == FIRST
    assert store.document(2) == SECOND


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_policy_we_ship_makes_the_round_trip(store, path, tmp_path):
    document = path.read_text()
    for keyring in tomllib.loads(document).get("keyring", {}).values():
        for name in (keyring.get("certificate"), keyring.get("private_key"), *keyring.get("trust", [])):
            if name not in (None, "system"):
                (tmp_path / name).write_text("something")
    of = store.commit(document, author="ann", message="import", parent=None, file=tmp_path / path.name)
    assert store.document(of) == document
    assert store.policy(of).revision == of.policy


def test_revisions_are_found_by_number_and_by_hash(store, first, second):
    for name in (second, 2, "2", second.hash, second.hash[:12], second.hash[:8].upper()):
        assert store.revision(name) == second
    for name in (3, "3", "0", "0" * 64):
        with pytest.raises(NoSuchRevision):
            store.revision(name)
    for name in ("abc", "", "-1", "xyzt", "1; DROP TABLE policy_revision", "٣", "%%%%"):
        with pytest.raises((UsageError, NoSuchRevision)):
            store.revision(name)


def test_relative_paths_start_from_where_the_file_was_and_stay_so(store, site):
    document = 'version = 1\n[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\n'
    first = store.commit(document, author="ann", message="import", parent=None, file=site)
    assert first.base == site.parent
    second = store.commit(document + "# more\n", author="ann", message="edit", parent=first)
    assert second.base == site.parent
    with pytest.raises(PolicyError, match=r'cannot read "/elsewhere/web\.pem"'):
        store.commit(document, author="ann", message="edit", parent=second, file=Path("/elsewhere/site.toml"))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_stale_parent_is_a_conflict_that_names_both(store, first, second):
    with pytest.raises(Conflict) as caught:
        store.commit(FIRST + "\n# mine", author="eve", message="mine", parent=first)
    assert str(second) in caught.value.message
    assert str(first) in caught.value.message
    assert '"bob@host"' in caught.value.message
    with pytest.raises(Conflict, match="this was made from none"):
        store.commit(FIRST, author="eve", message="mine", parent=None)
    assert store.head() == second


def test_a_parent_in_an_empty_store_is_none(store):
    with pytest.raises(NoSuchRevision):
        store.commit(FIRST, author="eve", message="mine", parent=1)


def test_a_commit_of_the_same_again_is_refused(store, first):
    with pytest.raises(Unchanged, match="this is what revision 1"):
        store.commit(FIRST, author="ann", message="again", parent=first)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "policy.toml:1: version: is missing"),
        ("version = 1\n[[rule]", "policy.toml:2: is not TOML"),
        (
            'version = 1\n[[rule]]\nname = "a"\nverdict = "no"',
            r'policy.toml:4: \[rule "a"\] verdict: "no" is not one of',
        ),
        ('version = 1\n[keyring.a]\nprivate_key = """\n-----BEGIN PRIVATE KEY-----\n"""', "policy.toml:4: holds PEM"),
        ("version = 1\n# \ud800", "policy.toml:2: is not UTF-8"),
        ("\ufeffversion = 1", "policy.toml:1: starts with a byte order mark"),
        ("version = 1\nx = " + "[" * 100_000, "nested too deeply"),
        ("version = 1\n# \x00", "policy.toml:2: is not TOML"),
    ],
    ids=range(8),
)
def test_what_is_no_policy_is_not_stored(store, document, problem):
    with pytest.raises(PolicyError, match=problem):
        store.commit(document, author="ann", message="bad", parent=None)
    assert store.head() is None


def test_names_with_odd_characters_are_stored_or_refused_clearly(store):
    for name in ("\\u0000", "\\u00e4 \\U0001F512", "'; --", "%s :x", "a\\nb"):
        head = store.head()
        document = f'version = 1\n[action."{name}"]\n[[rule]]\nname = "{name}"\nverdict = "tls"\naction = "{name}"\n'
        document += 'direction = "outbound"\n'
        try:
            of = store.commit(document, author="ann", message="odd", parent=head)
        except PolicyError:
            continue
        assert store.document(of) == document


def test_nothing_is_stored_without_an_author_and_a_message(store):
    for author, message in (("", "begin"), ("ann", "")):
        with pytest.raises(UsageError):
            store.commit(FIRST, author=author, message=message, parent=None)
    assert store.head() is None


# --- in force --------------------------------------------------------------------------------------------------------


def test_a_revision_is_activated_and_rolled_back(store, first, second):
    store.activate(first, "ann")
    third = store.commit(SECOND + "# 3", author="ann", message="three", parent=second)
    store.activate(2, "bob")
    store.activate(third, "ann")
    assert store.active().revision == third
    assert [store.rollback("ann").revision.number for _ in range(2)] == [2, 1]
    with pytest.raises(NoSuchRevision, match="no other revision was in force before"):
        store.rollback("ann")
    assert store.active().revision == first
    store.activate(third, "ann")
    assert store.rollback("ann").revision == first
    assert [one.revision.number for one in reversed(store.activations())] == [1, 2, 3, 2, 1, 3, 1]


def test_activating_what_is_active_writes_nothing(store, first):
    once = store.activate(first, "ann")
    assert store.activate(1, "bob") == once
    assert store.activations() == [once]


def test_a_roll_back_where_nothing_was_active_is_refused(store, first):
    with pytest.raises(NoSuchRevision):
        store.rollback("ann")


def test_what_is_not_right_any_more_is_not_activated(store, site):
    document = 'version = 1\n[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\n'
    good = store.commit("version = 1", author="ann", message="good", parent=None, file=site)
    bad = store.commit(document, author="ann", message="keyring", parent=good)
    store.activate(good, "ann")
    site.with_name("web.key").unlink()
    with pytest.raises(PolicyError, match=r"revision-2:4: \[keyring.web\] private_key: cannot read"):
        store.activate(bad, "ann")
    assert store.active().revision == good


def test_files_that_are_on_other_hosts_are_not_looked_for_when_told_so(store, site):
    document = 'version = 1\n[keyring.web]\ncertificate = "their.pem"\nprivate_key = "their.key"\n'
    with pytest.raises(PolicyError, match="cannot read"):
        store.commit(document, author="ann", message="theirs", parent=None, file=site)
    first = store.commit(document, author="ann", message="theirs", parent=None, file=site, elsewhere=True)
    with pytest.raises(PolicyError, match="cannot read"):
        store.activate(first, "ann")
    assert store.activate(first, "ann", elsewhere=True).revision == first
    store.activate(store.commit("version = 1", author="ann", message="none", parent=first), "ann")
    with pytest.raises(PolicyError, match="cannot read"):
        store.rollback("ann")
    assert store.rollback("ann", elsewhere=True).revision == first
    # Everything else is looked at.
    with pytest.raises(PolicyError, match="unknown key"):
        store.commit(document + "x = 1", author="ann", message="bad", parent=2, elsewhere=True)


def test_a_diff_is_by_name(store, first, second):
    changed, added = store.diff(first, second)
    assert (changed.kind, changed.name, changed.what) == ("rule", "web", "changed")
    assert [(one.key, one.old, one.new) for one in changed.keys] == [("verdict", "deny", "clear")]
    assert (added.name, added.what) == ("mail", "added")
    assert [one.what for one in store.diff(second, first)] == ["changed", "removed"]
    assert store.diff(2, 2) == ()


# --- several at once -------------------------------------------------------------------------------------------------

WRITER = """
import sys
import tomllib
from policy.store import Conflict, open_store

url, name = sys.argv[1:]
done = conflicts = 0
with open_store(url) as store:
    while done < 5:
        head = store.head()
        document = store.document(head) + f'[[rule]]\\nname = "{name} {done}"\\nverdict = "deny"\\n'
        try:
            store.commit(document, author=name, message=f"rule {done}", parent=head)
        except Conflict:
            conflicts += 1
        else:
            done += 1
print(conflicts)
"""


@pytest.mark.slow
def test_writers_in_several_processes_lose_nothing_and_are_told_of_conflicts(store, url):
    store.commit("version = 1\n", author="ann", message="begin", parent=None)
    names = ("a", "b", "c")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, name], stdout=subprocess.PIPE, text=True) for name in names
    ]
    outputs = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], outputs
    assert store.head().number == 16
    document = store.document(16)
    assert all(f'"{name} {number}"' in document for name in names for number in range(5))
    for one in store.history():
        store.document(one)  # and each is what its hash says


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_store_is_not_made_by_looking(tmp_path):
    with pytest.raises(StoreUnavailable, match=f"{tmp_path}/none.db: unable to open database file"):
        open_store(f"{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_tables_are_made_only_when_asked_for(url):
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    with pytest.raises(SchemaError, match="has no policy tables yet"):
        open_store(url)


@pytest.mark.parametrize("content", [b"version = 1\n" * 1000, b"SQLite format 3\0" + b"x" * 4096])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    for upgrade in (False, True):
        with pytest.raises(StoreUnavailable, match=str(path)):
            open_store(str(path), upgrade=upgrade)
    assert path.read_bytes() == content


def test_a_folder_and_a_symlink_loop_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "loop", tmp_path / "none" / "policy.db"):
        with pytest.raises(StoreUnavailable, match=str(path)):
            open_store(str(path), upgrade=True)


def test_a_server_that_is_not_there_is_said_without_the_password(free_port):
    with pytest.raises(StoreUnavailable) as caught:
        open_store(f"postgresql://ann:secret@127.0.0.1:{free_port()}/policy")
    assert "postgresql://ann:***@127.0.0.1" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "see whether it is there" in caught.value.hint


# --- what the hashes are for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE policy_piece SET text = replace(text, 'deny', 'clear')",
        "UPDATE policy_revision SET author = 'somebody else'",
        "UPDATE policy_revision SET message = 'harmless'",
    ],
)
def test_what_went_past_the_guards_of_the_database_is_noticed(store, url, first, statement):
    engine = make_engine(read_url(url))
    with engine.begin() as connection:
        if url.startswith("sqlite"):
            for name in connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement))
    engine.dispose()
    with pytest.raises(Damaged):
        store.document(1)
