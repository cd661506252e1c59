"""The model that most tests of this folder use."""

import pytest
from small_models import build


@pytest.fixture(scope="session")
def hybrid():
    return build("S-M-*-L-")
