from ktls.errors import ConfigError, SystemFault
from policy.store import errors


def test_who_is_to_blame_and_what_to_do():
    assert issubclass(errors.Conflict, ConfigError)
    assert issubclass(errors.StoreUnavailable, SystemFault)
    assert "newest revision" in errors.Conflict("x").hint
