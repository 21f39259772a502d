"""How hypothesis runs here: the same examples each time, and no deadline, since a busy machine is no defect."""

from hypothesis import settings

settings.register_profile("ktls", deadline=None, derandomize=True)
settings.load_profile("ktls")
