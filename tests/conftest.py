"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine may take its time over an example, or over inventing it: neither is a failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
