"""Files of the policy language, before anything in them means something."""

import pytest

from ktls.errors import PolicyError
from policy.document import open_document, read_file


def test_a_document_knows_where_its_values_are():
    root = open_document(b'a = 1\n[b]\nc = "x"\n', "f.toml")
    assert root.table() == {"a": 1, "b": {"c": "x"}}
    assert root.positions.line(("b", "c")) == 3


@pytest.mark.parametrize("data", [b"a = \xff\n", b"a = \n", b"\xef\xbb\xbfa = 1\n", b"a = " + b"[" * 5000])
def test_what_is_not_toml_is_refused_with_its_line(data):
    with pytest.raises(PolicyError, match=r"f\.toml:1"):
        open_document(data, "f.toml")


def test_a_loop_of_links_is_named(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(PolicyError, match="its symbolic links form a loop"):
        read_file(tmp_path / "a")
