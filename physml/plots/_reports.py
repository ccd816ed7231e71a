"""Figures of labelled images and of a classifier's evaluation."""

import numpy as np
from matplotlib.figure import Figure

from physml._numerics.calls import checked
from physml.classify import Evaluation
from physml.data import Images
from physml.plots._classification import confusion_matrix
from physml.plots._images import image_grid


@checked
def labelled_images(images: Images) -> Figure:
    """Images, each with the name of its class below."""
    return image_grid(images.images, [images.names[i] for i in np.asarray(images.labels)])


@checked
def evaluation_figures(found: Evaluation, images: Images) -> dict[str, Figure]:
    """By name, the "confusion" of classes, and the "worst" mistakes where there are mistakes.

    Args:
        found: what a classifier's probabilities of the images are worth.
        images: those images, scaled, to be shown.
    """
    figures = {"confusion": confusion_matrix(found.confusion, found.names)}
    if found.mistakes:
        worst, title = images.images[found.top_errors.index], "most confident mistakes"
        figures["worst"] = image_grid(worst, found.mistakes, title=title)
    return figures
