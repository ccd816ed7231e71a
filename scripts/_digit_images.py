"""The digits that a script is asked for: those of 8 x 8 pixels, or MNIST's."""

from dataclasses import dataclass
from pathlib import Path

import jax

from physml import experiment
from physml.data import Images, digits, mnist

FEW = 2000  # images of a quick look, and for scores that compare all pairs


@dataclass(frozen=True)
class DigitsConfig(experiment.Config):
    """Options of an experiment with digits."""

    mnist: bool = False
    """The digits of MNIST in place of those of 8 x 8 pixels."""
    data: Path | None = None
    """Folder with MNIST's four files; without it a cache, to which 12 MB are downloaded."""

    def images(self, key: jax.Array) -> Images:
        """The images, before anything is split off; few if quick."""
        if not self.mnist:
            return digits()
        images, _ = mnist(self.data, progress=True)
        if self.quick and len(images) > FEW:
            images, _ = images.split((FEW / len(images), 1 - FEW / len(images)), key)
        return images
