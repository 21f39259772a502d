"""One target under atheris, guided by coverage: `python -m tests.fuzz.guided TARGET [libFuzzer's options]`."""

import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["ktls", "policy"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
