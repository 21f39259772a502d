"""How commands answer."""

from policy.admin.output import count, show_json, show_table


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


def test_numbers_in_words():
    assert [count(number, "policy", "policies") for number in (0, 1, 2)] == ["no policies", "1 policy", "2 policies"]


def test_rows_become_blocks_on_a_terminal_that_is_too_narrow_only(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("x" * 30, "y" * 9), ("z", None)]
    show_table(("A", "LONG"), rows, empty="nothing", blocks=True)
    assert capsys.readouterr().out == f"A    {'x' * 30}\nLONG {'y' * 9}\n\nA    z\n"
    monkeypatch.setenv("COLUMNS", "41")
    show_table(("A", "LONG"), rows, empty="nothing", blocks=True)
    assert len(capsys.readouterr().out.splitlines()) == 3
