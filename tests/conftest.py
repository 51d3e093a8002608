"""How `make test` shares the tests out between two workers: `pytest -n 2 --no-loadscope-reorder`.

Tests on a cluster make two groups, which are begun first, one on each worker: at most two labs of the tests' are up at
a time, and the one ends about when the other does. Other tests, a file at a time, fill what is left of either worker's
time. Without `-n` all of this means nothing.
"""

import os
import secrets
import signal

import pytest
from xdist.scheduler import LoadScopeScheduling

CLUSTER = "tests/cluster/"


def pytest_configure() -> None:
    """Let both workers see sets in one order, another in each run: they must find the same tests.

    And let Ctrl-C be heard by what the tests start, also where they were themselves started in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("PYTHONHASHSEED", str(secrets.randbelow(2**32)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what lasts longest first, otherwise in the order that was drawn."""
    items.sort(key=lambda item: item.nodeid.startswith(CLUSTER), reverse=True)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Return who shares the tests out."""
    return Groups(config, log)


class Groups(LoadScopeScheduling):
    """Gives a group to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the group of a test."""
        if nodeid.startswith(CLUSTER):
            return "launch" if nodeid.startswith(f"{CLUSTER}launch/") else "cluster"
        return nodeid.partition("::")[0]
