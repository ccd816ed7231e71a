"""What the tests of several modules share."""

import functools
import inspect

import pytest


def refusals(*rows):
    """Run a test for every row (case, message) or (case, message, error): the case must raise.

    The case is the test's first argument. The error is a ValueError where the row names no other.
    """

    def decorate(test):
        case = next(iter(inspect.signature(test).parameters))

        @functools.wraps(test)
        def refused(**arguments):
            value, message, *error = arguments[case]
            with pytest.raises(*error or [ValueError], match=message):
                test(**arguments | {case: value})

        return pytest.mark.parametrize(case, rows)(refused)

    return decorate
