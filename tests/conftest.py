"""What all tests share: how hypothesis judges time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Where other tests run too, seconds say nothing of a strategy or an example; and the first text drawn in a
# fresh clone takes one for the tables of Unicode alone.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
