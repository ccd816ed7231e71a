"""The core under every network solution: tables, pieces, the linearised equation, the estimate."""

from physml.pinn.collocation._error import Error as Error
from physml.pinn.collocation._error import OnDemand as OnDemand
from physml.pinn.collocation._error import estimate as estimate
from physml.pinn.collocation._linearised import VectorField as VectorField
from physml.pinn.collocation._linearised import jacobian_at as jacobian_at
from physml.pinn.collocation._linearised import propagate as propagate
from physml.pinn.collocation._pieces import CorrectedNetworks as CorrectedNetworks
from physml.pinn.collocation._pieces import Polynomials as Polynomials
from physml.pinn.collocation._pieces import WindowNetworks as WindowNetworks
from physml.pinn.collocation._tables import Tables as Tables
from physml.pinn.collocation._tables import basis_at as basis_at
from physml.pinn.collocation._tables import hidden_layer as hidden_layer
from physml.pinn.collocation._tables import tabulate as tabulate
