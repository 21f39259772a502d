from pathlib import Path

import pytest

from ktls.errors import PolicyError
from policy.store.pem import refuse

FILE = Path("site.toml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('version = 1\nprivate_key = """-----BEGIN PRIVATE KEY-----\n"""', 2),
        ("version = 1\n\n# -----BEGIN RSA PRIVATE KEY-----\n", 3),
        ('version = 1\nx = ["\\u002d----BEGIN CERTIFICATE-----"]', 2),
        ('version = 1\n[action."\\u002d----BEGIN X-----"]', 2),
        ("no TOML -----BEGIN", 1),
    ],
)
def test_pem_is_refused_wherever_it_stands(text, line):
    with pytest.raises(PolicyError, match=f"^site.toml:{line}: holds PEM, and keys") as caught:
        refuse(text, FILE)
    assert "PRIVATE" not in caught.value.message


@pytest.mark.parametrize("text", ["version = 1", 'x = "\\u002d"', "\\ no TOML", 'certificate = "BEGIN.pem"'])
def test_other_text_is_let_through(text):
    refuse(text, FILE)
