"""Labelled images: from arrays, from folders, and the published sets."""

from physml.data.images._images import Images as Images
from physml.data.images._sets import cifar10 as cifar10
from physml.data.images._sets import digits as digits
from physml.data.images._sets import fashion_mnist as fashion_mnist
from physml.data.images._sets import mnist as mnist
