import asyncio
import queue
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policy.decide import decide
from policy.model import Facts, Policy, Verdict
from policy.store import Activation, open_store
from policy.store.connect import make_engine, read_url, writing
from policy.store.follow import Follower
from policy.store.snapshot_file import load
from policy.store.write import write_activation

SECONDS = 60
"""How long to wait for what must come; no test waits for it when all is well."""


@dataclass
class Followers:
    """Makes followers of one database, and collects what they hand over and say."""

    url: str
    snapshot: Path
    delivered: queue.Queue = field(default_factory=queue.Queue)
    said: queue.Queue = field(default_factory=queue.Queue)
    running: list[Follower] = field(default_factory=list)

    def start(self, **options):
        follower = Follower(
            self.url,
            snapshot=self.snapshot,
            deliver=self.delivered.put,
            say=self.said.put,
            **({"poll": 3600} | options),
        )
        self.running.append(follower)
        return follower.start()

    def next(self):
        return self.delivered.get(timeout=SECONDS)

    def hear(self, part):
        """Wait until they say something with this part."""
        while part not in (said := self.said.get(timeout=SECONDS)):
            pass
        return said

    def stop(self):
        while self.running:
            self.running.pop().stop()


@pytest.fixture
def followers(url, tmp_path):
    followers = Followers(url, tmp_path / "state" / "policy.snapshot")
    yield followers
    followers.stop()


@pytest.fixture
def commit(store, site):
    """Commit and activate a policy of one rule, with this name."""

    def do(name, more=""):
        document = f'version = 1\n[[rule]]\nname = "{name}"\nverdict = "deny"\n{more}'
        of = store.commit(document, author="ann", message=name, parent=store.head(), file=site)
        store.activate(of, "ann")
        return of

    return do


def rule(followed):
    return followed.policy.rules[0].name


def test_the_first_policy_is_the_active_one_and_each_later_one_comes_once(followers, commit, store):
    first = commit("one")
    begun = followers.start()
    assert (begun.source, begun.number, begun.hash, rule(begun)) == ("database", 1, first.hash, "one")
    commit("two")
    assert rule(followers.next()) == "two"
    store.commit("version = 1 # not activated", author="ann", message="more", parent=2)
    commit("three")
    assert rule(followers.next()) == "three"
    store.rollback("ann")
    assert rule(followers.next()) == "two"
    followers.stop()
    assert followers.delivered.empty()
    assert followers.said.empty()


def test_a_policy_that_nobody_told_of_is_found_by_asking(followers, commit, url):
    commit("one")
    followers.start(poll=0.05)
    if url.startswith("postgresql"):
        engine = make_engine(read_url(url))
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER policy_tell ON policy_activation")
        engine.dispose()
    commit("two")
    assert rule(followers.next()) == "two"


def test_what_is_in_force_is_kept_on_disk(followers, commit):
    commit("one")
    followers.start()
    assert load(followers.snapshot).number == 1
    second = commit("two")
    followers.next()
    followers.running[0].stop()  # it is kept when it has been taken
    followers.running.clear()
    kept = load(followers.snapshot)
    assert (kept.hash, kept.file) == (second.hash, second.file)


def test_a_revision_that_is_not_right_here_leaves_the_old_one(followers, commit, site, store):
    commit("one")
    followers.start()
    key = site.with_name("web.key")
    document = (
        'version = 1\n[[rule]]\nname = "two"\nverdict = "deny"\n'
        '[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\n'
    )
    of = store.commit(document, author="ann", message="keyring", parent=1, file=site)
    key.rename(key.with_suffix(".hidden"))
    # Not by Store.activate, which looks too: as from another host, where the file is there.
    engine = make_engine(read_url(followers.url))
    with writing(engine) as connection:
        write_activation(connection, Activation(2, of, "ann", of.time))
    engine.dispose()
    said = followers.hear("revision 2")
    assert "is active but not right here, and the policy before it stays" in said
    assert "revision-2:7: [keyring.web] private_key: cannot read" in said
    assert followers.delivered.empty()
    assert load(followers.snapshot).number == 1
    key.with_suffix(".hidden").rename(key)
    followers.running[0].again()
    assert rule(followers.next()) == "two"
    assert "revision 2" in followers.hear("is in use")


def test_without_a_database_it_begins_with_the_last_good_policy(commit, tmp_path, followers, free_port):
    commit("one")
    followers.start()
    followers.stop()
    gone = f"postgresql://127.0.0.1:{free_port()}/policy" if "postgresql" in followers.url else f"{tmp_path}/gone.db"
    followers.url = gone
    begun = followers.start()
    assert (begun.source, begun.number, rule(begun)) == ("snapshot", 1, "one")
    followers.hear("gone.db" if "gone.db" in gone else "connection failed")
    assert "which may not be the active one" in followers.hear("begins with revision 1")


def test_without_database_and_snapshot_it_denies_unless_told_otherwise(tmp_path):
    said: list[object] = []
    facts = Facts(direction="outbound", remote=("192.0.2.1", 80), when=datetime.now(UTC))
    for without in (Verdict.DENY, Verdict.CLEAR):
        options: dict = {} if without is Verdict.DENY else {"without": without}
        follower = Follower(
            f"{tmp_path}/none.db", snapshot=tmp_path / "none", deliver=said.append, say=said.append, **options
        )
        begun = follower.start()
        follower.stop()
        assert begun.source == "none"
        assert decide(begun.policy, facts).verdict is without
        assert f"there is no policy: the verdict for every connection is {without}" in said
    assert not (tmp_path / "none.db").exists()


def test_a_snapshot_that_is_not_right_is_not_used(followers, tmp_path):
    followers.url = f"{tmp_path}/none.db"
    followers.snapshot.parent.mkdir()
    followers.snapshot.write_text("version = 1")
    assert followers.start().source == "none"
    assert "is not a policy's snapshot" in followers.hear("no last good policy to begin with")


def test_a_store_with_nothing_active_is_said_and_followed(followers, store, commit):
    assert followers.start().source == "none"
    followers.hear("no revision is active yet")
    commit("one")
    assert rule(followers.next()) == "one"


def test_a_snapshot_that_cannot_be_written_is_said_and_the_policy_used(followers, commit, tmp_path):
    commit("one")
    followers.snapshot = tmp_path / "site.toml" / "x"
    (tmp_path / "site.toml").write_text("")
    assert rule(followers.start()) == "one"
    followers.hear("would not be there after a start without the database")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_sqlite_file_that_goes_away_and_comes_back_is_followed_on(followers, commit, url, store):
    commit("one")
    followers.start()
    path = Path(url.removeprefix("sqlite:///"))
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    followers.hear("No such file or directory")
    hidden.rename(path)
    followers.hear("stays in use")
    with open_store(url) as again:
        again.activate(again.commit("version = 1", author="ann", message="two", parent=again.head()), "ann")
    assert followers.next().number == 2


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_is_followed_on(own_postgresql, tmp_path):
    followers = Followers(own_postgresql.url(), tmp_path / "policy.snapshot")
    with open_store(followers.url, upgrade=True) as store:
        store.activate(store.commit("version = 1", author="ann", message="one", parent=None), "ann")
    begun = followers.start()
    own_postgresql.stop()
    followers.hear("server closed the connection")
    assert followers.delivered.empty()
    assert begun.policy.default is Verdict.CLEAR
    own_postgresql.start()
    followers.hear("stays in use")
    with open_store(followers.url) as store:
        document = 'version = 1\ndefault = "deny"'
        store.activate(store.commit(document, author="ann", message="two", parent=1), "ann")
    assert followers.next().policy.default is Verdict.DENY
    followers.stop()


async def test_policies_come_into_an_event_loop(followers, commit):
    commit("one")
    loop = asyncio.get_running_loop()
    used: asyncio.Queue[Policy] = asyncio.Queue()
    follower = Follower(
        followers.url,
        snapshot=None,
        deliver=lambda followed: loop.call_soon_threadsafe(used.put_nowait, followed.policy),
        say=followers.said.put,
    )
    first = await asyncio.to_thread(follower.start)
    assert rule(first) == "one"
    await asyncio.to_thread(commit, "two")
    policy = await asyncio.wait_for(used.get(), SECONDS)
    assert policy.rules[0].name == "two"
    await asyncio.to_thread(follower.stop)


def test_a_follower_leaves_nothing_behind(followers, commit, fd_count):
    commit("one")
    followers.start()
    followers.stop()
    before = fd_count()
    for _ in range(5):
        followers.start()
        followers.stop()
    assert fd_count() == before


def test_a_follower_that_was_never_started_can_be_stopped(followers):
    Follower(followers.url, snapshot=None, deliver=print, say=print).stop()
