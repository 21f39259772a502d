import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy import names


def fits(glob, text: str) -> bool:
    return glob.matches(text)


def refused(check, value) -> str:
    with pytest.raises(PolicyError) as caught:
        check(value)
    return caught.value.message


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/usr/bin/psql", "/usr/bin/psql", True),
        ("/usr/bin/psql", "/usr/bin/psql2", False),
        ("/opt/app/*", "/opt/app/bin/tool", True),
        ("/opt/app/*", "/opt/app", False),
        ("/opt/app/*", "/opt/application", False),
        ("/usr/bin/python3.?", "/usr/bin/python3.9", True),
        ("/usr/bin/python3.?", "/usr/bin/python3.11", False),
        ("/usr/bin/python3.?", "/usr/bin/python3x1", False),
        ("/a[b]/*", "/a[b]/c", True),
        ("/a[b]/*", "/ab/c", False),
        ("/a\nb", "/a\nb", True),
        ("/a", "/a\n", False),
        ("*", "/anything", True),
    ],
)
def test_programs(pattern, text, expected):
    assert fits(names.program(pattern), text) is expected


@pytest.mark.parametrize("text", ["psql", "", "bin/*", "/a\0", "/" + "x" * 4096])
def test_programs_are_absolute_paths(text):
    assert "is not an absolute path" in refused(names.program, text)


@pytest.mark.parametrize("text", ["/usr//bin/x", "/usr/../bin/x", "/usr/./x", "/usr/bin/"])
def test_paths_that_no_program_has_are_told(text):
    assert "never matches" in refused(names.program, text)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*.DB.example", "a.db.example", True),
        ("*.db.example", "a.b.db.example", True),
        ("*.db.example", "db.example", False),
        ("db?.example.", "db1.example", True),
        ("*", "localhost", True),
        ("_sip.example", "_sip.example", True),
    ],
)
def test_remote_names(pattern, text, expected):
    assert fits(names.remote_name(pattern), text) is expected


@pytest.mark.parametrize("text", ["", ".", "a..b", "a b", "http://db.example", "db:5432", "x" * 254, "bücher.example"])
def test_what_is_no_remote_name(text):
    assert "is not a host name" in refused(names.remote_name, text)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_an_address_is_no_remote_name(text):
    assert 'those stand in "remote"' in refused(names.remote_name, text)


@pytest.mark.parametrize("text", ["nginx.service", "app@*.service", "*", "session-?.scope", "user.slice"])
def test_units(text):
    assert str(names.unit(text)) == text


@pytest.mark.parametrize(
    ("text", "why"), [("nginx", "ends with its type"), ("a/b.service", "is not a unit"), ("", "is not a unit")]
)
def test_what_is_no_unit(text, why):
    assert why in refused(names.unit, text)


@pytest.mark.parametrize(("text", "name"), [("DB.Example.", "db.example"), ("localhost", "localhost"), ("a-1", "a-1")])
def test_host_names(text, name):
    assert names.host_name(text) == name


@pytest.mark.parametrize("text", ["", ".", "-a", "a-", "a" * 64, "*.example", "192.0.2.1", "1.2.3", "a_b c"])
def test_what_is_no_host_name(text):
    assert "is not a host name" in refused(names.host_name, text)


def test_names_beyond_ascii_are_told_of_their_other_form():
    assert 'its "xn--" form' in refused(names.host_name, "bücher.example")


def test_a_certificates_name_may_start_with_a_star_for_one_label():
    assert names.certificate_name("*.Shop.example") == "*.shop.example"
    assert "is not a host name" in refused(names.certificate_name, "a.*.example")


def test_a_peer_is_a_host_or_an_address():
    assert names.host_or_address("DB.example") == "db.example"
    assert names.host_or_address("2001:DB8::1") == "2001:db8::1"
    assert "zone" in refused(names.host_or_address, "fe80::1%eth0")


@given(st.text("*?ab/.", max_size=8), st.text("ab/.", max_size=10))
def test_globs_are_those_of_the_shell_without_its_brackets(pattern, text):
    assert fits(names.glob(pattern), text) is fnmatch.fnmatchcase(text, pattern)


def test_no_glob_takes_for_ever():
    assert not fits(names.glob("*a" * 60 + "b"), "a" * 4000)  # with backtracking, it would
