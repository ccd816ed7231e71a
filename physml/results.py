"""How a solve or a fit ended: one list of results, and one way to say them."""

import warnings
from typing import TYPE_CHECKING, TypeVar

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from physml._numerics.checks import is_concrete

T = TypeVar("T")


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve or a fit ended: Diffrax's results and those below.

    `RESULTS.promote` takes a result of Diffrax, Optimistix or Lineax. Printing one gives its
    message. `nonfinite` is inherited: the right-hand side, the loss or the solution became infinite
    or NaN.
    """

    if TYPE_CHECKING:  # inherited, of which pyright thinks as members of another type
        nonfinite = max_steps_reached = nonlinear_divergence = ""
    successful = ""
    early_stopped = "The validation loss stopped improving, or a callback asked to stop."
    interrupted = "Ctrl-C: what had been reached by then is returned."
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
        "tolerance with as many as are allowed."
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


_GOOD = (RESULTS.successful, RESULTS.early_stopped)
_DOUBTFUL = (RESULTS.interrupted, RESULTS.suspect, RESULTS.misfit, RESULTS.unidentifiable)


def is_failure(result: RESULTS) -> Bool[Array, "*batch"]:
    """Whether a solve or a fit did not reach its end; a result that only raises doubt did."""
    return ~jnp.any(jnp.stack([result == other for other in (*_GOOD, *_DOUBTFUL)]), axis=0)


def conclude(
    outcome: T, result: RESULTS, name: str, details: str = "", *, throw: bool, stacklevel: int = 2
) -> T:
    """What was solved or fitted, after its result has been said.

    A failure raises an error, or without `throw` a warning; a result that raises doubt, an
    interrupt among them, gives a warning; success and an early stop say nothing. Where the result
    is traced, a failure raises when the compiled program runs, and nothing else can be said.

    Args:
        outcome: what the caller returns.
        result: how it ended.
        name: the function that was called, such as "pinn.solve".
        details: sentences that follow the result's own.
        throw: whether a failure raises.
        stacklevel: 2 for the caller of the function that concludes, as in `warnings.warn`.

    Raises:
        RuntimeError: it failed, and `throw`.
    """
    successful = result == RESULTS.successful
    if is_concrete(successful) and successful:  # at once: the comparisons below take 0.3 ms
        return outcome
    failed = is_failure(result)
    if not is_concrete(failed):
        return result.error_if(outcome, failed) if throw else outcome
    if result == RESULTS.early_stopped:
        return outcome
    words = f"{name}: {RESULTS[result]} {details}".rstrip()
    if throw and failed:
        raise RuntimeError(words)
    warnings.warn(words, stacklevel=stacklevel + 1)
    return outcome


def raise_if_interrupted(result: RESULTS) -> None:
    """Stop a script that would go on with an interrupted fit as with a finished one.

    Raises:
        KeyboardInterrupt: the result is `interrupted`.
    """
    if bool(result == RESULTS.interrupted):
        raise KeyboardInterrupt
