"""A day of the European feeder: small, real, with all three levels."""

import pytest

from flexmeter.scenario.field import Field, Minute
from flexmeter.scenario.options import DayOptions


@pytest.fixture(scope="session")
def feeder() -> Field:
    return Field(DayOptions(grid="eulv"), "tenant")


@pytest.fixture(scope="session")
def noon(feeder: Field) -> Minute:
    return feeder.minute(720, feeder.grid.switch_vector)
