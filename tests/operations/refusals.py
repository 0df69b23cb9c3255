"""What a refusal looks like, for all tests of what is refused."""

import pytest

REFUSED = NotImplementedError, TypeError, ValueError, IndexError, OverflowError, RuntimeError
REFUSED += (ZeroDivisionError,)


def is_one_line(error):
    """Whether a user is told what is wrong in one line."""
    return type(error) in REFUSED and 10 < len(str(error)) < 200 and "\n" not in str(error)


def refused(call, error, match):
    """Assert that a call ends in one clear line, of one kind of error, that has these words."""
    with pytest.raises(error, match=match) as raised:
        call()
    assert is_one_line(raised.value), raised.value
