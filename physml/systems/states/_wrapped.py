"""A system that has the facts of another one."""

from jaxtyping import Array, Float

from physml.systems._base import Parameter, System


class Wrapped(System):
    """What has another right-hand side than `system`, or the same one in another form."""

    system: System

    lyapunov_exponents = None

    @property
    def dim(self) -> int:
        return self.system.dim

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.system.state_names

    @property
    def autonomous(self) -> bool:
        return self.system.autonomous

    @property
    def period(self) -> Parameter | None:
        return self.system.period

    @property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.system.box

    @property
    def symmetry(self) -> tuple[tuple[float, ...], ...] | None:
        return self.system.symmetry

    def fixed_points(self) -> Float[Array, "num dim"]:
        return self.system.fixed_points()
