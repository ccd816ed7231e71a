"""Gaussian processes: functions, probabilities of classes, next-step maps, forces of motions."""

from physml.bayes.gaussian_processes._classification import GaussianClassifier as GaussianClassifier
from physml.bayes.gaussian_processes._classification import (
    GaussianClassifierFit as GaussianClassifierFit,
)
from physml.bayes.gaussian_processes._classification import (
    fit_gaussian_classifier as fit_gaussian_classifier,
)
from physml.bayes.gaussian_processes._fitting import GaussianProcessFit as GaussianProcessFit
from physml.bayes.gaussian_processes._fitting import fit_gaussian_process as fit_gaussian_process
from physml.bayes.gaussian_processes._gaussian_process import GaussianProcess as GaussianProcess
from physml.bayes.gaussian_processes._kernels import RBF as RBF
from physml.bayes.gaussian_processes._kernels import AnyKernel as AnyKernel
from physml.bayes.gaussian_processes._kernels import Constant as Constant
from physml.bayes.gaussian_processes._kernels import Kernel as Kernel
from physml.bayes.gaussian_processes._kernels import Linear as Linear
from physml.bayes.gaussian_processes._kernels import Matern as Matern
from physml.bayes.gaussian_processes._kernels import Periodic as Periodic
from physml.bayes.gaussian_processes._kernels import Product as Product
from physml.bayes.gaussian_processes._kernels import RationalQuadratic as RationalQuadratic
from physml.bayes.gaussian_processes._kernels import Sum as Sum
from physml.bayes.gaussian_processes._operator import LinearEquationFit as LinearEquationFit
from physml.bayes.gaussian_processes._operator import fit_linear_equation as fit_linear_equation
from physml.bayes.gaussian_processes._quasiseparable import Quasiseparable as Quasiseparable
from physml.bayes.gaussian_processes._solvers import Exact as Exact
from physml.bayes.gaussian_processes._solvers import Inducing as Inducing
from physml.bayes.gaussian_processes._stepper import GaussianStepper as GaussianStepper
from physml.bayes.gaussian_processes._stepper import StepperFit as StepperFit
from physml.bayes.gaussian_processes._stepper import fit_stepper as fit_stepper
from physml.bayes.gaussian_processes._stepper import forecast_moments as forecast_moments
from physml.bayes.gaussian_processes._stepper import forecast_samples as forecast_samples
