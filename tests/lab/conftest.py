"""Keyed connections for tests of the kernel. tests/conftest.py says when these tests are skipped."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ktls.ciphers import Version
from tests.lab.harness import BY_VERSION, ONE_EACH, Link

EACH_VERSION = [pytest.param(version, id=version.label) for version in Version]
EACH_CIPHER = [pytest.param(pair, id=f"{pair[0].label}-{pair[1].kernel.name}") for pair in ONE_EACH]


@pytest.fixture
def connect() -> Iterator[Callable[..., Link]]:
    """Call it for a link: connect(version, suite=..., keyed=..., attached=...)."""
    links: list[Link] = []

    def make(version: Version = Version.TLS13, **options: Any) -> Link:
        suite = options.pop("suite", BY_VERSION[version])
        links.append(Link(version, suite, **options))
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.fixture(params=EACH_VERSION)
def version(request: pytest.FixtureRequest) -> Version:
    """Each version."""
    return Version(request.param)


@pytest.fixture
def link(connect: Callable[..., Link], version: Version) -> Link:
    """A keyed connection in each version."""
    return connect(version)


@pytest.fixture
def link13(connect: Callable[..., Link]) -> Link:
    """A keyed connection in TLS 1.3."""
    return connect(Version.TLS13)


@pytest.fixture
def link12(connect: Callable[..., Link]) -> Link:
    """A keyed connection in TLS 1.2."""
    return connect(Version.TLS12)


@pytest.fixture(params=EACH_CIPHER)
def cipher_link(request: pytest.FixtureRequest, connect: Callable[..., Link]) -> Link:
    """A keyed connection with each of the kernel's ciphers in each version."""
    version, suite = request.param
    return connect(version, suite=suite)
