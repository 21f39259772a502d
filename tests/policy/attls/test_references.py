"""References between statements."""

from policy.attls.references import Library, Notes
from policy.attls.statements import read_statements


def test_references_are_followed_and_the_rest_is_unused():
    statements = read_statements("R a\n{\nIRef x\nI { K 1 }\n}\nI x { K 2 }\nI y { K 3 }\n", "f")
    library = Library(statements, Notes())
    assert [one.value("K") for one in library.within(statements[0], "I")] == ["1", "2"]
    assert [one.label for one in library.unused()] == ["y"]


def test_a_note_is_made_once():
    notes = Notes()
    notes.add(1, "x")
    notes.add(1, "x")
    assert notes.found == [(1, "x")]
