"""Well-known systems, with what is known of each."""

from physml.systems.known._lorenz import Lorenz as Lorenz
from physml.systems.known._lorenz96 import Lorenz96 as Lorenz96
from physml.systems.known._lotka_volterra import LotkaVolterra as LotkaVolterra
from physml.systems.known._nonlinear import Duffing as Duffing
from physml.systems.known._nonlinear import Pendulum as Pendulum
from physml.systems.known._nonlinear import VanDerPol as VanDerPol
from physml.systems.known._rossler import Rossler as Rossler
