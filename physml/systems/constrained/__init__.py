"""Systems with constraints: implicit equations, mass matrices, invariants, motion on a surface."""

from physml.systems.constrained._base import ImplicitSystem as ImplicitSystem
from physml.systems.constrained._mass import implicit as implicit
from physml.systems.constrained._mass import with_mass as with_mass
from physml.systems.constrained._surface import constrained_motion as constrained_motion
from physml.systems.constrained._surface import with_invariants as with_invariants
