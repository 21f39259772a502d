"""What counts as another content, and where it would be heard of."""

from pathlib import Path

import pytest

from ktls.contents import content_hash, files_of, places, signature
from ktls.keyring import Keyring, SniEntry


def test_all_that_a_keyring_names_is_listed_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    keyring = Keyring("k", one, two, trust=("system", str(one)), crl=(two,), sni=(SniEntry(("a",), one, two),))
    assert files_of(keyring) == (one, two)


def test_only_the_content_counts(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    before, seen = content_hash([file]), signature([file])
    file.unlink()
    file.write_text("one")
    assert content_hash([file]) == before
    assert signature([file]) != seen
    file.write_text("two")
    assert content_hash([file]) != before


def test_a_file_that_is_gone_or_comes_is_another_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    gone = content_hash([file])
    file.write_text("")
    assert content_hash([file]) != gone


def test_a_directory_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("a")
    before = content_hash([tmp_path])
    (tmp_path / "b.pem").write_text("a")
    assert content_hash([tmp_path]) != before
    (tmp_path / "b.pem").unlink()
    assert content_hash([tmp_path]) == before


@pytest.mark.parametrize("target", ["real/file", "../{name}/real/file"])
def test_every_link_on_the_way_has_a_place(tmp_path: Path, target: str) -> None:
    """given -> way/..data/file; way/..data -> real's folder: three places where it can be exchanged."""
    (tmp_path / "way").mkdir()
    (tmp_path / "given").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "way" / "..data").symlink_to(f"../{target.format(name=tmp_path.name)}".removesuffix("/file"))
    (tmp_path / "given" / "file").symlink_to("../way/..data/file")
    wanted = {tmp_path / name for name in ("given", "way", "real")}
    assert wanted <= places([tmp_path / "given" / "file"])


def test_links_in_a_ring_and_directories_that_are_not_there_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert places([tmp_path / "a", tmp_path / "none" / "file"]) == {tmp_path}
