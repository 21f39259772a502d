import os
from pathlib import Path

import pytest

from ktls.errors import PolicyError, UsageError
from policy.store import default_author
from policy.store.given import check_author, check_message, encode

FILE = Path("site.toml")


@pytest.mark.parametrize("author", ["", " ", "a\nb", "x" * 201, "-----BEGIN PRIVATE KEY-----", "\0", "\ud800"])
def test_an_author_is_one_line(author):
    with pytest.raises(UsageError):
        check_author(author)


@pytest.mark.parametrize("message", ["", "\n", "x" * 10_001, "-----BEGIN RSA PRIVATE KEY-----", "a\0b", "\x1b[31m"])
def test_a_message_is_there_and_can_be_printed(message):
    with pytest.raises(UsageError):
        check_message(message)


def test_what_is_right_loses_the_space_around_it():
    assert check_author(" Ann Ä <ann@host>\n") == "Ann Ä <ann@host>"
    assert check_message("\nwhy\n\n\tbecause ✓\n") == "why\n\n\tbecause ✓"


def test_whoever_runs_this_is_the_author():
    assert check_author(default_author()).endswith(f"@{os.uname().nodename}")


def test_a_document_of_no_end_is_refused():
    with pytest.raises(PolicyError, match=r"^site\.toml: has 67108865 bytes: at most 67108864 are permitted"):
        encode("x" * ((64 << 20) + 1), FILE)


@pytest.mark.parametrize(
    ("document", "problem"), [("a\n\ud800", "2: is not UTF-8"), ("\ufeffa", "1: starts with a byte")]
)
def test_a_document_is_utf_8_without_a_mark(document, problem):
    with pytest.raises(PolicyError, match=f"^site.toml:{problem}"):
        encode(document, FILE)
