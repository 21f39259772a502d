"""test_follow has what comes of it; this is what a watch promises by itself."""

import os

import pytest

from policy.store.connect import read_url
from policy.store.errors import SchemaError, StoreUnavailable
from policy.store.read import active
from policy.store.watch import open_watch

SECONDS = 60


@pytest.fixture
def wake():
    opened = os.eventfd(0)
    yield opened
    os.close(opened)


@pytest.fixture
def watch(store, url):
    watch = open_watch(read_url(url))
    yield watch
    watch.close()


def ask(watch):
    watch.forget()
    with watch.connection.begin():
        found = active(watch.connection)
    return found.number if found else 0


def test_an_activation_ends_the_wait_also_one_before_it_began(watch, store, wake):
    head = None
    for number in range(1, 21):
        assert ask(watch) == number - 1
        head = store.commit(f"version = 1 # {number}", author="ann", message="m", parent=head)
        store.activate(head, "ann")
        # It may wake for the commit too; that it does not wait for an hour is the promise.
        watch.wait(3600, wake)
        while ask(watch) < number:
            watch.wait(3600, wake)


def test_being_woken_ends_the_wait(watch, wake):
    ask(watch)
    os.eventfd_write(wake, 1)
    watch.wait(3600, wake)


def test_the_time_ends_the_wait(watch, wake):
    ask(watch)
    watch.wait(0.01, wake)


def test_a_database_without_tables_is_refused(url, tmp_path):
    if url.startswith("sqlite"):
        (tmp_path / "policy.db").touch()
    with pytest.raises(SchemaError):
        open_watch(read_url(url))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_another_file_in_its_place_is_noticed(watch, wake, tmp_path):
    ask(watch)
    (tmp_path / "other").write_bytes((tmp_path / "policy.db").read_bytes())
    (tmp_path / "other").rename(tmp_path / "policy.db")
    with pytest.raises(StoreUnavailable, match="is another file now"):
        watch.wait(SECONDS, wake)
