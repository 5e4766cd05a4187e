"""Numbers for people."""

import pytest

from flexmeter.cli.files import watts


@pytest.mark.parametrize(
    ("value", "text"),
    [(43_180_000.0, "43.18 MW"), (-223.2, "-223.2 W"), (999_990.0, "1 MW"), (0.0, "0 W"), (5e12, "5000 GW")],
)
def test_a_power_has_four_digits_and_a_unit_that_fits(value, text):
    assert watts(value) == text
