"""Settings for tests that are many and tiny."""

import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine is not a failure: no example has a time limit.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """On tensors this small, more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
