"""Real programs, unmodified: `scene` starts them, and looks afterwards at what their agents wrote down.

A test marked `measured` is a load: with KTLS_PROGRAMS_MEASURE=1 (`make programs`) it runs once without us and once with
us, and what it gives `scene.rate` goes into docs/programs.md. Otherwise it runs once, with us, and with a small load.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TlsFiles
from tests.programs.results import Results
from tests.programs.scene import MEASURE, Scene, open_folder

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real programs are for `make test`, not for every day."""
    for item in items:
        if item.path.parent == FOLDER:
            item.add_marker("slow")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Measured scenarios run without us too."""
    if MEASURE and metafunc.definition.get_closest_marker("measured"):
        metafunc.parametrize("with_us", [False, True], ids=["plain", "covered"])


@pytest.fixture
def with_us() -> bool:
    """Whether this run of the scenario is covered."""
    return True


@pytest.fixture(scope="session")
def results() -> Results:
    """The run's rows; written down after each scenario when they are measured."""
    return Results(os.environ.get("KTLS_TEST_ENGINE", "relay"))


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, results: Results, tls_files: TlsFiles, free_port: Callable[[], int], with_us: bool
) -> Iterator[Scene]:
    """Start programs with it; at the end they are stopped and what their agents say is checked."""
    with open_folder() as folder:
        stage = Scene(results.engine, Path(folder), tls_files, results, free_port, covered=with_us)
        try:
            yield stage
            stage.stop()
            stage.check()
            if MEASURE:
                results.write()
        finally:
            stage.stop()
            stage.close()
