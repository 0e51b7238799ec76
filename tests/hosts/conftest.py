"""Properties of hosts are not about speed."""

from hypothesis import settings

settings.register_profile("hosts", deadline=None)
settings.load_profile("hosts")
