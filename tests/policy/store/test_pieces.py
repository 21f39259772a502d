import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.store.pieces import join, split

POLICIES = sorted((Path(__file__).parents[3] / "policies").glob("*.toml"))
POLICIES = [path for path in POLICIES if not path.name.endswith(".test.toml")]


def keys(document):
    return [piece.key for piece in split(document)]


def texts(document):
    return {piece.key: piece.text for piece in split(document)}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_the_pieces_of_a_policy_are_its_text_and_its_data(path):
    document = path.read_text()
    pieces = split(document)
    assert join(piece.text for piece in pieces) == document
    data = tomllib.loads(document)
    assert [json.loads(piece.data or "") for piece in pieces if piece.kind == "rule"] == data["rule"]
    for kind in ("action", "keyring"):
        held = {piece.name: json.loads(piece.data or "") for piece in pieces if piece.kind == kind}
        assert held == data.get(kind, {})


def test_each_piece_but_the_top_is_toml_by_itself():
    document = 'version = 1\n# one\n[[rule]]\nname = "a"\ntime = { from = "1" }\n\n# two\n[action.b]\nx = 1\n'
    for piece in split(document)[1:]:
        (table,) = tomllib.loads(piece.text).values()
        inside = table[0] if piece.kind == "rule" else table[piece.name]
        assert inside == json.loads(piece.data or "")


def test_comments_right_above_a_header_go_with_what_begins_there():
    document = "version = 1\n# of the top\n\n# of a\n# too\n[action.a]\n"
    assert texts(document) == {
        ("top", "", 0): "version = 1\n# of the top\n\n",
        ("action", "a", 0): "# of a\n# too\n[action.a]\n",
    }


def test_what_only_looks_like_a_comment_or_a_header_stays_in_its_string():
    document = 'version = 1\nx = """\n[action.no]\n# no"""\n[action.a]\ny = [\n  ["b"],\n]\n'
    assert keys(document) == [("top", "", 0), ("action", "a", 0)]
    assert texts(document)["action", "a", 0].startswith("[action.a]")


def test_a_table_in_several_places_has_several_parts():
    document = '[keyring.web]\ntrust = ["a"]\n[action.a]\n[[keyring.web.sni]]\nnames = ["b"]\n'
    assert keys(document) == [("top", "", 0), ("keyring", "web", 0), ("action", "a", 0), ("keyring", "web", 1)]
    first, _, later = split(document)[1:]
    assert json.loads(first.data or "") == {"trust": ["a"], "sni": [{"names": ["b"]}]}
    assert later.data is None


def test_sub_tables_of_a_rule_are_part_of_it():
    document = '[[rule]]\nname = "a"\n[rule.time]\nfrom = "1"\n[[rule]]\nname = "b"\n'
    assert keys(document) == [("top", "", 0), ("rule", "a", 0), ("rule", "b", 0)]
    assert "rule.time" in texts(document)["rule", "a", 0]


def test_what_is_written_inside_the_top_level_has_data_and_no_text():
    document = 'version = 1\nrule = [{ name = "a" }, { name = "b" }]\naction.c.x = 1\n'
    assert keys(document) == [("top", "", 0), ("rule", "a", 0), ("rule", "b", 0), ("action", "c", 0)]
    assert [piece.text for piece in split(document)] == [document, "", "", ""]


@pytest.mark.parametrize("document", ["version = 1\r\n[action.a]\r\nx = 1\r\n", "version = 1\n[action.a]", ""])
def test_line_ends_stay_as_they_are(document):
    assert join(piece.text for piece in split(document)) == document


def test_the_hash_is_that_of_all_of_it():
    (piece,) = split("version = 1")
    held = '["top","",0,"{\\"version\\":1}","version = 1"]'
    assert piece.hash == hashlib.sha256(held.encode()).hexdigest()
    assert split("version = 1 ")[0].hash != piece.hash


@pytest.mark.parametrize(
    "document", ["[", "rule = 1", "[[rule]]\nx = 1", "action = 1", "[[rule]]\nname = 1", "x = nan"]
)
def test_what_is_no_policy_is_refused(document):
    with pytest.raises(PolicyError):
        split(document)


@given(st.text(alphabet="[]ru.le=\"\n\r #x{},'actioname1", max_size=80))
def test_any_text_is_pieces_or_our_error(text):
    try:
        pieces = split(text)
    except PolicyError:
        return
    assert join(piece.text for piece in pieces) == text
    assert len({piece.key for piece in pieces}) <= len(pieces)
