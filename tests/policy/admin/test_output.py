"""How commands answer."""

from policy.admin.output import show_json, show_table


def test_a_piped_table_is_neither_cut_nor_coloured(capsys):
    show_table(("A", "B"), [("x" * 200, None), ("[bold]y", 1)], empty="nothing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].rstrip() == "x" * 200
    assert lines[2].split() == ["[bold]y", "1"]


def test_an_empty_table_says_so(capsys):
    show_table(("A",), [], empty="nothing")
    assert capsys.readouterr().out == "nothing\n"


def test_json_keeps_what_people_wrote(capsys):
    show_json({"name": "Bücher"})
    assert "Bücher" in capsys.readouterr().out
