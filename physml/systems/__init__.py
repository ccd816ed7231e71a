"""What is solved: right-hand sides, and what is known about them."""

from physml.systems.base import System as System
from physml.systems.forcing import Cosine as Cosine
from physml.systems.forcing import Forcing as Forcing
from physml.systems.forcing import FourierSeries as FourierSeries
from physml.systems.forcing import FunctionForcing as FunctionForcing
from physml.systems.forcing import SquareWave as SquareWave
from physml.systems.function import from_function as from_function
from physml.systems.linear import amplitude_response as amplitude_response
from physml.systems.linear import phase_lag as phase_lag
from physml.systems.lorenz import Lorenz as Lorenz
from physml.systems.lorenz96 import Lorenz96 as Lorenz96
from physml.systems.lotka_volterra import LotkaVolterra as LotkaVolterra
from physml.systems.nonlinear import Duffing as Duffing
from physml.systems.nonlinear import Pendulum as Pendulum
from physml.systems.nonlinear import VanDerPol as VanDerPol
from physml.systems.oscillator import DrivenOscillator as DrivenOscillator
from physml.systems.oscillator import Oscillator as Oscillator
from physml.systems.parametric import with_parameters as with_parameters
from physml.systems.rossler import Rossler as Rossler
