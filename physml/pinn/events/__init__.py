"""What happens on the way: roots along a solution, and solutions that go on from them anew."""

from physml.pinn.events._event import Event as Event
from physml.pinn.events._legs import Leg as Leg
from physml.pinn.events._legs import join as join
from physml.pinn.events._roots import Roots as Roots
from physml.pinn.events._roots import find_roots as find_roots
from physml.pinn.events._roots import locate as locate
from physml.pinn.events._solve import EventSolution as EventSolution
from physml.pinn.events._solve import solve_events as solve_events
