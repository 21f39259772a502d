from policy.store.diff import Change, KeyChange, compare
from policy.store.pieces import split


def rules(*names):
    return "version = 1\n" + "".join(f'[[rule]]\nname = "{name}"\nverdict = "deny"\n' for name in names)


def diff(old, new):
    return compare(split(old), split(new))


def test_the_same_has_no_difference():
    assert diff(rules("a", "b"), rules("a", "b")) == ()


def test_added_and_removed_by_name():
    assert diff(rules("a", "b"), rules("b", "c")) == (Change("rule", "c", "added"), Change("rule", "a", "removed"))


def test_the_keys_that_changed_with_those_inside_tables():
    old = "[action.a]\neof = 'strict'\nrekey = { records = 5, seconds = 1 }\n"
    new = "[action.a]\nengine = 'relay'\nrekey = { records = 6, seconds = 1 }\n"
    keys = (KeyChange("engine", None, "relay"), KeyChange("eof", "strict", None), KeyChange("rekey.records", 5, 6))
    assert diff(old, new) == (Change("action", "a", "changed", keys),)


def test_a_rule_that_went_elsewhere_is_moved_and_its_neighbours_are_not():
    assert diff(rules(*"abcde"), rules(*"bcdea")) == (Change("rule", "a", "moved", moved=True),)
    (change,) = diff(rules(*"abcde"), rules(*"bcdea").replace('"a"\nverdict = "deny"', '"a"\nverdict = "clear"'))
    assert (change.what, change.moved) == ("changed", True)


def test_the_order_of_actions_does_not_matter():
    assert diff("[action.a]\n[action.b]\n", "[action.b]\n[action.a]\n") == ()


def test_a_comment_is_a_difference_and_a_blank_line_is_none():
    assert diff(rules("a"), rules("a") + "# why\n") == (Change("rule", "a", "rewritten"),)
    assert diff(rules("a"), rules("a") + "\n") == ()


def test_the_top_level_is_one_of_them():
    assert diff("version = 1", "version = 1\ndefault = 'deny'") == (
        Change("top", "", "changed", (KeyChange("default", None, "deny"),)),
    )


def test_a_keyring_in_several_places_is_compared_as_a_whole():
    old = "[keyring.a]\ntrust = ['b']\n[[keyring.a.sni]]\nnames = ['c']\n"
    new = "[[keyring.a.sni]]\nnames = ['c']\n[action.x]\n[keyring.a]\ntrust = ['b']\n"
    assert [change.what for change in diff(old, new)] == ["rewritten", "added"]
