"""Settings shared by all tests."""

from hypothesis import settings

# Examples may take any time: tests must not depend on the clock.
settings.register_profile("flexmeter", deadline=None)
settings.load_profile("flexmeter")
