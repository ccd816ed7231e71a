"""Systems whose rate of change depends on their past."""

from physml.systems.with_delays._base import Delay as Delay
from physml.systems.with_delays._base import DelayedSystem as DelayedSystem
from physml.systems.with_delays._function import FunctionDelayedSystem as FunctionDelayedSystem
from physml.systems.with_delays._function import delayed as delayed
from physml.systems.with_delays._known import IkedaDelay as IkedaDelay
from physml.systems.with_delays._known import MackeyGlass as MackeyGlass
from physml.systems.with_delays._known import PiecewiseCircuit as PiecewiseCircuit
from physml.systems.with_delays._known import ScrollDelay as ScrollDelay
from physml.systems.with_delays._known import SprottDelay as SprottDelay
from physml.systems.with_delays._known import VossDelay as VossDelay
