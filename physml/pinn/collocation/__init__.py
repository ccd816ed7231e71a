"""The core under every network solution: tables, pieces, the linearised equation, the estimate."""

from physml.pinn.collocation._error import Error as Error
from physml.pinn.collocation._error import OnDemand as OnDemand
from physml.pinn.collocation._error import estimate as estimate
from physml.pinn.collocation._iteration import iterate as iterate
from physml.pinn.collocation._linearised import ExactNodes as ExactNodes
from physml.pinn.collocation._linearised import Linearised as Linearised
from physml.pinn.collocation._linearised import Nodes as Nodes
from physml.pinn.collocation._linearised import VectorField as VectorField
from physml.pinn.collocation._linearised import defect as defect
from physml.pinn.collocation._linearised import exact_defect as exact_defect
from physml.pinn.collocation._linearised import exact_nodes_in as exact_nodes_in
from physml.pinn.collocation._linearised import linearise as linearise
from physml.pinn.collocation._linearised import nodes_in as nodes_in
from physml.pinn.collocation._pieces import CorrectedNetworks as CorrectedNetworks
from physml.pinn.collocation._pieces import Pieces as Pieces
from physml.pinn.collocation._pieces import Polynomials as Polynomials
from physml.pinn.collocation._pieces import WindowNetworks as WindowNetworks
from physml.pinn.collocation._tables import Tables as Tables
from physml.pinn.collocation._tables import basis_at as basis_at
from physml.pinn.collocation._tables import hidden_layer as hidden_layer
from physml.pinn.collocation._tables import tabulate as tabulate
from physml.pinn.collocation._tolerance import ROUNDINGS as ROUNDINGS
from physml.pinn.collocation._tolerance import Tolerance as Tolerance
from physml.pinn.collocation._tolerance import rounding as rounding
from physml.pinn.collocation._units import in_units as in_units
from physml.pinn.collocation._units import powers_of_two as powers_of_two
