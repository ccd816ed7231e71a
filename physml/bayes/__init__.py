"""Bayesian methods: what the data leave open, said by distributions."""

from physml.bayes._fitting import GaussianProcessFit as GaussianProcessFit
from physml.bayes._fitting import fit_gaussian_process as fit_gaussian_process
from physml.bayes._gaussian_process import GaussianProcess as GaussianProcess
from physml.bayes._kernels import RBF as RBF
from physml.bayes._kernels import AnyKernel as AnyKernel
from physml.bayes._kernels import Constant as Constant
from physml.bayes._kernels import Kernel as Kernel
from physml.bayes._kernels import Linear as Linear
from physml.bayes._kernels import Matern as Matern
from physml.bayes._kernels import Periodic as Periodic
from physml.bayes._kernels import Product as Product
from physml.bayes._kernels import RationalQuadratic as RationalQuadratic
from physml.bayes._kernels import Sum as Sum
from physml.bayes._operator import LinearEquationFit as LinearEquationFit
from physml.bayes._operator import fit_linear_equation as fit_linear_equation
from physml.bayes._quasiseparable import Quasiseparable as Quasiseparable
from physml.bayes._solvers import Exact as Exact
from physml.bayes._solvers import Inducing as Inducing
from physml.bayes._stepper import GaussianStepper as GaussianStepper
from physml.bayes._stepper import StepperFit as StepperFit
from physml.bayes._stepper import fit_stepper as fit_stepper
from physml.bayes._stepper import forecast_moments as forecast_moments
from physml.bayes._stepper import forecast_samples as forecast_samples
