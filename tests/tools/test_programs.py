"""docs/programs.md says what the runs' files hold, for both engines."""

from tools import programs


def run(**rows):
    return {"machine": "Linux 6", "rows": rows}


def row(version="1.0", found=(), **rates):
    return {"version": version, "found": list(found), "rates": rates}


def lines(**results):
    return [line for line in programs.render(results).splitlines() if line.startswith(("| ", "- "))][1:]


def test_a_rate_is_shown_without_us_and_with_us_for_each_engine():
    relay = run(curl=row(speed={"plain": 1234.5, "covered": 99.96}))
    kernel = run(curl=row(speed={"plain": 2.5, "covered": 1.25}))
    assert lines(relay=relay, kernel=kernel) == ["| curl | 1.0 | speed | 1,234 -> 100 | 2.5 -> 1.25 |"]


def test_a_program_with_two_rates_has_two_lines_and_is_named_once():
    both = run(curl=row(down={"plain": 1, "covered": 2}, up={"plain": 3, "covered": 4}))
    assert lines(relay=both, kernel=both) == [
        "| curl | 1.0 | down | 1 -> 2 | 1 -> 2 |",
        "|  |  | up | 3 -> 4 | 3 -> 4 |",
    ]


def test_a_program_without_a_rate_passes_and_one_that_did_not_run_has_a_dash():
    assert lines(relay=run(wget=row()), kernel=run()) == ["| wget | 1.0 | - | passes | - |"]


def test_half_of_a_measurement_shows():
    assert lines(relay=run(curl=row(up={"covered": 4})), kernel=run()) == ["| curl | 1.0 | up | - -> 4 | - |"]


def test_what_was_found_on_either_engine_is_told_once():
    relay, kernel = run(curl=row(found=["a"])), run(curl=row(found=["a", "b"]))
    assert lines(relay=relay, kernel=kernel)[1:] == ["- **curl**: a.", "- **curl**: b."]


def test_the_order_is_the_alphabets_whatever_the_case():
    names = [line.split()[1] for line in lines(relay=run(curl=row(), Apache=row(), nc=row()), kernel=run())]
    assert names == ["Apache", "curl", "nc"]


def test_a_missing_run_is_an_error_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    assert programs.main() == 1
    assert "build/programs-relay.json, build/programs-kernel.json" in capsys.readouterr().err
