import pytest

from ktls.errors import PolicyError
from policy.store import edits
from policy.store.pieces import Kind
from policy.store.written import write

DOCUMENT = """\
# Site policy
version = 1      # of the language

# --- rules

# The web.
[[rule]]
name = "web"     # everybody knows
verdict = "tls"
action = "modern"

# --- the rest

[[rule]]
name = "mail"
verdict = "deny"

[action.modern]
min_version = "1.3" # or later
"""
RULE = '[[rule]]\nname = "news"\nverdict = "clear"\n'


def test_a_rule_is_added_at_the_end_or_before_another():
    assert edits.add(DOCUMENT, RULE) == f"{DOCUMENT}\n{RULE}"
    at_mail = DOCUMENT.index('[[rule]]\nname = "mail"')
    assert edits.add(DOCUMENT, RULE, before="mail") == f"{DOCUMENT[:at_mail]}{RULE}\n{DOCUMENT[at_mail:]}"


def test_a_document_without_a_last_line_end_gets_one():
    assert edits.add("version = 1", "[action.a]") == "version = 1\n\n[action.a]\n"


def test_a_rule_is_removed_with_the_comment_above_it_and_no_other():
    without = edits.remove(DOCUMENT, "rule", "web")
    assert "The web" not in without
    assert without == DOCUMENT.replace(DOCUMENT[DOCUMENT.index("# The web") : DOCUMENT.index("\n# --- the rest")], "")


def test_the_text_of_a_piece_replaced_by_itself_changes_nothing():
    things: tuple[tuple[Kind, str], ...] = (("rule", "web"), ("rule", "mail"), ("action", "modern"))
    for kind, name in things:
        assert edits.replace(DOCUMENT, kind, name, edits.text_of(DOCUMENT, kind, name)) == DOCUMENT


def test_a_rule_is_replaced_where_it_stands():
    changed = edits.replace(DOCUMENT, "rule", "web", RULE)
    assert changed == DOCUMENT.replace(edits.text_of(DOCUMENT, "rule", "web"), RULE)


def test_single_keys_are_changed_and_comments_stay():
    changed = edits.change(DOCUMENT, "rule", "web", {"verdict": "clear", "remote_port": ["80"]}, ("action",))
    assert changed == DOCUMENT.replace('"tls"\naction = "modern"\n', '"clear"\nremote_port = ["80"]\n')
    assert edits.change(DOCUMENT, "top", "", {"version": 2}) == DOCUMENT.replace("version = 1 ", "version = 2 ")
    assert edits.change(DOCUMENT, "action", "modern", {"min_version": "1.2"}) == DOCUMENT.replace('"1.3"', '"1.2"')


def test_the_keys_at_the_top_are_added_before_the_tables():
    changed = edits.change("version = 1\n[action.a]\n", "top", "", {"default": "deny"})
    assert changed == 'version = 1\ndefault = "deny"\n[action.a]\n'


def test_a_keyring_in_several_places_is_one_thing():
    document = '[keyring.web]\ntrust = ["a"]\n[action.a]\n[[keyring.web.sni]]\nnames = ["b"]\n'
    assert edits.remove(document, "keyring", "web") == "[action.a]\n"
    assert edits.replace(document, "keyring", "web", "[keyring.new]\n") == "[keyring.new]\n[action.a]\n"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda: edits.add(DOCUMENT, '[[rule]]\nname = "web"'), 'rule "web" is there already'),
        (lambda: edits.add(DOCUMENT, RULE, before="nail"), 'there is no rule "nail"; did you mean "mail"?'),
        (lambda: edits.add(DOCUMENT, "version = 1"), "begins with something that is in no rule"),
        (lambda: edits.add(DOCUMENT, "# nothing"), "is 0 tables, and must be one"),
        (lambda: edits.add(DOCUMENT, RULE + "[action.a]"), "is 2 tables, and must be one"),
        (lambda: edits.add(DOCUMENT, "[[rule]"), "is not TOML"),
        (lambda: edits.remove(DOCUMENT, "keyring", "web"), 'there is no keyring "web"'),
        (lambda: edits.replace(DOCUMENT, "rule", "web", "[action.b]"), "the new text is of the kind action"),
        (lambda: edits.replace(DOCUMENT, "rule", "web", '[[rule]]\nname = "mail"'), 'rule "mail" is there already'),
        (lambda: edits.remove("action.a = {}", "action", "a"), r"is written inside another table: give it a \[action"),
        (lambda: edits.change(DOCUMENT, "rule", "web", {"verdict": None}), 'rule "web" cannot be changed'),
        (lambda: edits.change(DOCUMENT, "rule", "web", {"name": "mail"}), 'rule "mail" is there already'),
    ],
)
def test_what_cannot_be_done_is_said(edit, message):
    with pytest.raises(PolicyError, match=message):
        edit()


def test_what_was_written_by_us_can_be_added():
    assert edits.add("version = 1\n", write("keyring", "a b", {})) == 'version = 1\n\n[keyring."a b"]\n'
