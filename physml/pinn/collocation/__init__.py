"""The core under every network solution: tables, pieces, the linearised equation, the estimate."""

from physml.pinn.collocation._error import Error, OnDemand, estimate
from physml.pinn.collocation._iteration import Tolerance, iterate
from physml.pinn.collocation._linearised import (
    ExactNodes,
    Linearised,
    Nodes,
    VectorField,
    defect,
    exact_defect,
    exact_nodes_in,
    linearise,
    nodes_in,
)
from physml.pinn.collocation._pieces import CorrectedNetworks, Pieces, Polynomials, WindowNetworks
from physml.pinn.collocation._tables import Tables, basis_at, hidden_layer, tabulate

__all__ = [
    "CorrectedNetworks",
    "Error",
    "ExactNodes",
    "Linearised",
    "Nodes",
    "OnDemand",
    "Pieces",
    "Polynomials",
    "Tables",
    "Tolerance",
    "VectorField",
    "WindowNetworks",
    "basis_at",
    "defect",
    "estimate",
    "exact_defect",
    "exact_nodes_in",
    "hidden_layer",
    "iterate",
    "linearise",
    "nodes_in",
    "tabulate",
]
