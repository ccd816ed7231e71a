"""Many models along an axis: their state, their step, their validation, on the device."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from physml._numerics.calls import ask
from physml._numerics.devices import of_each
from physml._numerics.parts import Filter, Parts, take_apart
from physml._types import Loss
from physml.fit._gradient import Best, FitState, GradientStep, validated

_RUN_ONCE = {"xla_backend_optimization_level": 0}  # a third of the time to compile


class Member(eqx.Module):
    """What a model has of its own; with an axis of models outside `jax.vmap`."""

    params: PyTree
    rest: PyTree
    opt_state: PyTree
    good: tuple[PyTree, PyTree]  # the last parameters and rest whose own loss was finite
    nonfinite_step: Int[Array, "..."]
    best: Best | None

    def state(self, step: Int[Array, ""], key: PRNGKeyArray | None) -> FitState:
        """As a single fit has it."""
        return FitState(self.params, self.rest, self.opt_state, step, key, self.best)


class Members(eqx.Module):
    """The state of a sweep: all models, and what they have in common."""

    members: Member
    step: Int[Array, ""]
    key: PRNGKeyArray | None


class MembersStep(eqx.Module):
    """A step of `fit.loop` for all models, in which each that has diverged stays as it is."""

    loss: Loss
    optimizer: Callable[[PyTree], optax.GradientTransformation]
    parts: Parts
    settings: PyTree
    mesh: Mesh | None = eqx.field(static=True)

    def __call__(
        self, state: Members, batch: PyTree, key: PRNGKeyArray | None
    ) -> tuple[Members, dict[str, Array]]:
        def one(model: tuple[PyTree, Member], shared: PyTree) -> tuple[Member, Array]:
            (setting, old), (count, own_key, batch, key) = model, shared
            optimizer = optax.with_extra_args_support(self.optimizer(setting))
            step = GradientStep(self.loss, optimizer, self.parts)
            new, metrics = step(old.state(count, own_key), batch, key)
            loss = metrics["loss"]
            fails = (old.nonfinite_step < 0) & ~jnp.isfinite(loss)
            at = jnp.where(fails, count, old.nonfinite_step)

            def unless_failed(new: PyTree, old: PyTree) -> PyTree:
                return jax.tree.map(lambda n, o: jnp.where(at < 0, n, o), new, old)

            kept = unless_failed(
                (new.params, new.rest, new.opt_state), (old.params, old.rest, old.opt_state)
            )
            good = unless_failed((old.params, old.rest), old.good)
            member = Member(kept[0], kept[1], kept[2], good, at, old.best)
            return member, jnp.where(at < 0, loss, jnp.nan)

        models, shared = (self.settings, state.members), (state.step, state.key, batch, key)
        members, loss = of_each(one, models, shared, self.mesh)
        # The name is not "loss", or the loop would stop and go back where all models have diverged.
        return Members(members, state.step + 1, state.key), {"losses": loss}


def validate_all(
    loss: Loss, parts: Parts, mesh: Mesh | None, state: Members, valid: PyTree
) -> tuple[Best, Array]:
    """The best of each model so far, and the validation loss of each, NaN where it diverged."""

    def one(member: Member, shared: PyTree) -> tuple[Best, Array]:
        step, key, valid = shared
        best, value = validated(loss, parts, member.state(step, key), valid)
        # A loss such as the share of errors is finite even for a model that has diverged.
        fine = (member.nonfinite_step < 0) & _finite(member.params)
        best = jax.tree.map(lambda new, old: jnp.where(fine, new, old), best, member.best)
        return best, jnp.where(fine, value, jnp.nan)

    return of_each(one, state.members, (state.step, state.key, valid), mesh)


def _finite(params: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()


def _begun(
    build_model: Callable[[PyTree], PyTree],
    optimizer: Callable[[PyTree], optax.GradientTransformation],
    settings: PyTree,
    wrt: Filter,
    key: PRNGKeyArray | None,
    has_valid: bool,
) -> tuple[Parts, Members]:
    """How the models are put together, and the state of no steps."""

    def one(setting: PyTree) -> tuple[Parts, Member]:
        model = ask("build_model", "build_model(setting)", build_model, setting)
        if not any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(model)):
            raise TypeError(f"build_model must return a model, got {type(model).__name__}")
        parts, params, rest = take_apart(model, wrt)
        rule = ask("optimizer", "optimizer(setting)", optimizer, setting)
        if not isinstance(rule, optax.GradientTransformation):
            raise TypeError(
                "optimizer must return an optax.GradientTransformation, such as optax.adam(1e-3), "
                f"got {type(rule).__name__}"
            )
        opt_state = optax.with_extra_args_support(rule).init(params)
        best = FitState.begin(params, rest, opt_state, key, has_valid).best
        unspoiled = jnp.full((), -1, jnp.int32)
        return parts, Member(params, rest, opt_state, (params, rest), unspoiled, best)

    parts, members = eqx.filter_vmap(one)(settings)
    return parts, Members(members, jnp.zeros((), jnp.int32), key)


begin: Any = eqx.filter_jit(_begun, compiler_options=_RUN_ONCE)  # pyright: ignore[reportCallIssue]


@functools.partial(jax.jit, compiler_options=_RUN_ONCE)
def chosen(members: Member) -> tuple[Bool[Array, " models"], tuple[PyTree, PyTree]]:
    """Which models became non-finite in the last step, and the arrays of those to be returned."""

    def one(member: Member) -> tuple:
        last, best = (member.params, member.rest), member.best
        finite = _finite(member.params)
        spoiled = ~finite & (member.nonfinite_step < 0)
        fine = finite & (member.nonfinite_step < 0)
        chosen = jax.tree.map(lambda x, good: jnp.where(fine, x, good), last, member.good)
        if best is not None:
            seen = jnp.isfinite(best.loss)
            pair = (best.params, best.rest)
            chosen = jax.tree.map(lambda x, b: jnp.where(seen, b, x), chosen, pair)
        return spoiled, chosen

    return jax.vmap(one)(members)
