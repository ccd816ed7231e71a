"""Systems of differential equations: right-hand sides, and known facts about them."""

from physml.systems._base import System as System
from physml.systems._forcing import Cosine as Cosine
from physml.systems._forcing import Forcing as Forcing
from physml.systems._forcing import FourierSeries as FourierSeries
from physml.systems._forcing import FunctionForcing as FunctionForcing
from physml.systems._forcing import SquareWave as SquareWave
from physml.systems._function import from_function as from_function
from physml.systems._linear import amplitude_response as amplitude_response
from physml.systems._linear import phase_lag as phase_lag
from physml.systems._lorenz import Lorenz as Lorenz
from physml.systems._lorenz96 import Lorenz96 as Lorenz96
from physml.systems._lotka_volterra import LotkaVolterra as LotkaVolterra
from physml.systems._nonlinear import Duffing as Duffing
from physml.systems._nonlinear import Pendulum as Pendulum
from physml.systems._nonlinear import VanDerPol as VanDerPol
from physml.systems._oscillator import DrivenOscillator as DrivenOscillator
from physml.systems._oscillator import Oscillator as Oscillator
from physml.systems._parametric import ParametricSystem as ParametricSystem
from physml.systems._parametric import with_parameters as with_parameters
from physml.systems._problem import Problem as Problem
from physml.systems._problem import check_problem as check_problem
from physml.systems._problem import enter as enter
from physml.systems._rossler import Rossler as Rossler
from physml.systems._table import Table as Table
