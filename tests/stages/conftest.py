"""What tests of pages share: a browser, and a project with trained models to report on."""

import pytest

from tests.helpers import browser
from tests.helpers import report_world as world


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A tab of a real Chromium."""
    program = browser.find()
    if program is None:
        pytest.skip("no chromium on the PATH (Debian: apt install chromium)")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with two graphs, their runs and a study; and the runs' scorers by folder."""
    root = tmp_path_factory.mktemp("project")
    scorers = world.build(root, "DB15K", drawn=True) | world.build(root, "MKG-Y", drawn=False, seed=1)
    world.write_study(root)
    return root, scorers
