"""How a solve or a fit ended: one list of results, and one way to say them.

Every solve and every fit ends in `conclude`. A failure raises, or warns with `throw=False`; doubt
and an interrupt warn; success and an early stop are silent.

The rule for interrupts: Ctrl-C ends the work after the chunk of steps that is under way (work that
is not done in chunks raises KeyboardInterrupt as it returns to Python). What had been reached is
returned, and its result is `interrupted` at every level up to the user's. This holds even if Ctrl-C
came in the last chunk: whoever pressed it does not want the next fit. A second Ctrl-C acts at once.
In a script, that is within `physml.experiment.Run`, nobody looks at what had been reached: once its
checkpoint is written, `conclude` raises KeyboardInterrupt.
"""

import functools
import inspect
import operator
import os
import warnings
from typing import TYPE_CHECKING, TypeVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from physml._numerics.checks import is_concrete
from physml._numerics.interrupt import in_script

T = TypeVar("T")

_PACKAGE = os.path.dirname(__file__) + os.sep


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve or a fit ended: Diffrax's results and those below.

    `RESULTS.promote` takes a result of Diffrax, Optimistix or Lineax. Printing one gives its
    message. `nonfinite` is inherited: the right-hand side, the loss or the solution became infinite
    or NaN.
    """

    if TYPE_CHECKING:  # inherited; pyright takes them for members of another type
        nonfinite = max_steps_reached = nonlinear_divergence = ""

        @staticmethod
        def where(pred: ArrayLike, a: object, b: object) -> "RESULTS": ...

    successful = ""
    early_stopped = "The validation loss stopped improving, or a callback asked to stop."
    interrupted = "Ctrl-C was pressed: what had been reached by then is returned."
    diverged = (
        "The solution could not be continued: its steps became too short. It blows up near the "
        "time reached, or it is too stiff for an explicit solver."
    )
    window_failed = (
        "A window could not be solved to tolerance at the shortest span. The solution "
        "is good up to the time reached."
    )
    unresolved = (
        "The windows or elements do not resolve the solution: its residual stays above the "
        "tolerance."
    )
    not_converged = "The fit did not converge: try another guess, more steps, or more windows."
    suspect = (
        "The equation's residual is small, but the error estimate is not: the values may "
        "belong to another solution of the same equation."
    )
    misfit = (
        "The fit does not explain the data, whose noise is much smaller than the residual: the "
        "model is wrong, or this is a local minimum; try another guess."
    )
    unidentifiable = (
        "The data do not determine all parameters: a standard deviation is as large as its "
        "parameter, or two parameters change the data in the same way."
    )
    noise_unknown = (
        "There are as many unknowns as observed numbers, so nothing is left to estimate the noise "
        "from, and the intervals are infinite: give the noise, or more observations."
    )
    noise_contradicted = (
        "The residuals are not those of the noise that is assumed, so the intervals may be wrong."
    )
    noisy = (
        "The rows are noisy, which biases what is fitted to single steps: take the noise out with "
        'noise="auto", or take the rows as they are with noise=0.'
    )
    not_mixed = (
        "The chains have not mixed: they differ (R-hat above 1.01), or more than one draw in a "
        "thousand diverged. Draw more, or give the unknowns priors or other bounds."
    )
    not_positive_definite = (
        "The kernel's matrix is not positive definite: the function is no kernel, or points "
        "coincide that need more noise."
    )
    accumulated = (
        "Events follow each other ever faster, infinitely many in a finite time: let a restart "
        "change to another motion, such as rest."
    )
    at_bound = (
        "The likelihood grows up to the bound of a parameter, a factor of a million from its "
        "start: the data do not determine it, or another start is needed."
    )
    delay_vanished = (
        "A delay became zero or negative, or the legs between breaking points became too short: "
        "the solution is good up to the time reached."
    )
    roots_missed = (
        "A function whose roots are looked for varies faster than could be followed, or is noise: "
        "some may be missing."
    )


# Diffrax's has no message, and Equinox would warn of another one in the class.
RESULTS._index_to_message[int(RESULTS.successful._value)] = "Successful."

_GOOD = (RESULTS.successful, RESULTS.early_stopped)
_DOUBTFUL = (
    *(RESULTS.interrupted, RESULTS.suspect, RESULTS.misfit, RESULTS.unidentifiable),
    *(RESULTS.noise_unknown, RESULTS.noise_contradicted, RESULTS.noisy, RESULTS.not_mixed),
    RESULTS.at_bound,
)


def is_failure(result: RESULTS) -> Bool[Array, "*batch"]:
    """Whether a solve or a fit failed. An early stop, doubt and an interrupt are no failures."""
    # Of a concrete result these are NumPy's booleans, which compile nothing.
    fine = (result == other for other in (*_GOOD, *_DOUBTFUL))
    return jnp.asarray(~functools.reduce(operator.or_, fine))


def conclude(outcome: T, result: RESULTS, name: str, details: str = "", *, throw: bool) -> T:
    """Return what was solved or fitted, or raise, or warn, by how it ended.

    A failure raises, or warns with `throw=False`; doubt and an interrupt warn; success and an early
    stop are silent. In a script an interrupt raises. Where the result is traced, a failure raises
    when the compiled program runs, and nothing warns.

    Args:
        outcome: what was solved or fitted, which the caller returns.
        result: how it ended.
        name: the function that the user called, such as "pinn.solve".
        details: sentences that follow the result's own message.
        throw: whether a failure raises.

    Raises:
        RuntimeError: the result is a failure, and `throw` is set.
        KeyboardInterrupt: the result is `interrupted`, within an `experiment.Run`.
    """
    if all(is_concrete(leaf) for leaf in jax.tree.leaves(result)):
        result = jax.tree.map(np.asarray, result)  # whose comparisons compile nothing
        if result == RESULTS.successful:  # at once: the comparisons below take 0.3 ms
            return outcome
    failed = is_failure(result)
    if not is_concrete(failed):
        # Equinox gives the message of the batch's largest result, whether or not that one failed.
        failure = RESULTS.where(failed, result, RESULTS.successful)
        return failure.error_if(outcome, failed) if throw else outcome
    if result == RESULTS.early_stopped:
        return outcome
    if in_script():
        raise_if_interrupted(result)
    words = f"{name}: {RESULTS[result]} {details}".rstrip()
    if throw and failed:
        raise RuntimeError(words)
    warnings.warn(words, stacklevel=_level_of_user())
    return outcome


def _level_of_user() -> int:
    """The `stacklevel` at which a warning of the caller points to the first line outside physml."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def raise_if_interrupted(result: RESULTS) -> None:
    """Stop what would otherwise take an interrupted fit for a finished one.

    Work that has no result to say so calls it after a fit of its own.

    Raises:
        KeyboardInterrupt: the result, or one of a batch of them, is `interrupted`.
    """
    if bool(jnp.any(result == RESULTS.interrupted)):
        raise KeyboardInterrupt
