"""Coloured textures with a power-law spectrum, as natural ground, bark, sand and foliage have.

Source: the recipe of power-law ("1/f") noise with an orientation, as studies of camouflage use it
(Walshe and Geisler 2020; Lamdouar et al., arXiv 2309.03899); the palettes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

# Mean colours of the ground, as shares of full white: sand, bark, moss, reef, stone, leaf litter.
PALETTES = (
    ((0.62, 0.54, 0.40), (0.16, 0.15, 0.13), (0.04, -0.01, -0.04)),
    ((0.38, 0.31, 0.25), (0.18, 0.16, 0.13), (0.04, 0.01, -0.04)),
    ((0.33, 0.40, 0.22), (0.16, 0.18, 0.11), (0.05, 0.00, -0.02)),
    ((0.30, 0.44, 0.46), (0.15, 0.17, 0.16), (0.06, -0.02, -0.05)),
    ((0.47, 0.47, 0.46), (0.19, 0.19, 0.19), (0.03, 0.00, -0.03)),
    ((0.50, 0.38, 0.24), (0.20, 0.17, 0.11), (0.04, -0.03, -0.03)),
)


@dataclass(frozen=True)
class Texture:
    """The statistics of a texture: two images of it differ in phase alone.

    Attributes:
        slope: the amplitude falls with frequency to this power; more is smoother.
        angle: direction of the grain in radians.
        stretch: how much longer the grain is than wide.
        gain: how hard light and dark are parted; grains and blades instead of clouds.
        mean: colour, as shares of full white.
        light: what the texture's light adds to the colour.
        tint: what its second, smoother field adds.
    """

    slope: float
    angle: float
    stretch: float
    gain: float
    mean: tuple[float, float, float]
    light: tuple[float, float, float]
    tint: tuple[float, float, float]

    def shifted(
        self, *, slope: float, angle: float, stretch: float, light: float, tint: float
    ) -> Texture:
        """Return the texture with other statistics, each moved by so much.

        Args:
            slope: added to the slope.
            angle: added to the angle.
            stretch: factor on the grain's length.
            light: added to all colours.
            tint: added along the texture's own tint, in its units.
        """
        moved = (m + light + tint * t for m, t in zip(self.mean, self.tint, strict=True))
        return replace(
            self,
            slope=self.slope + slope,
            angle=self.angle + angle,
            stretch=max(1.0, self.stretch * stretch),
            mean=tuple(moved),
        )

    def render(self, size: int, rng: Generator) -> np.ndarray:
        """Return (size, size, 3) colours about 0..1, of a phase drawn from `rng`."""
        light, tint = _fields(self, size, rng)
        light = np.tanh(np.float32(self.gain) * light) / np.tanh(np.float32(self.gain))
        image = np.empty((size, size, 3), np.float32)
        for channel, (mean, bright, other) in enumerate(
            zip(self.mean, self.light, self.tint, strict=True)
        ):
            image[..., channel] = mean + bright * light + other * tint
        return image


def draw_texture(rng: Generator) -> Texture:
    """Draw the statistics of a background."""
    mean, light, tint = PALETTES[int(rng.integers(len(PALETTES)))]
    shade = float(rng.normal(0, 0.04))
    return Texture(
        slope=float(rng.uniform(0.9, 1.4)),
        angle=float(rng.uniform(0, np.pi)),
        stretch=float(rng.choice([1.0, 1.6, 2.6])),
        gain=float(rng.uniform(0.6, 2.0)),
        mean=tuple(m + shade for m in mean),
        light=light,
        tint=tint,
    )


def _fields(texture: Texture, size: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the two fields of a texture, each of mean 0 and deviation 1."""
    # Two real fields are drawn as one complex one: one transform instead of two.
    phase = rng.standard_normal((2, size, size), np.float32)
    y = np.fft.fftfreq(size).astype(np.float32)[:, None] * size
    x = np.fft.fftfreq(size).astype(np.float32)[None] * size
    cos, sin = np.float32(np.cos(texture.angle)), np.float32(np.sin(texture.angle))
    root = np.float32(np.sqrt(texture.stretch))
    along, across = (x * cos + y * sin) * root, (y * cos - x * sin) / root
    frequency = np.hypot(along, across)
    frequency[0, 0] = 1
    amplitude = frequency ** np.float32(-texture.slope)
    # Clouds as large as the image would give the mean colour away, or hide it.
    amplitude *= 1 - np.exp(-((frequency / 3) ** 2))
    amplitude[0, 0] = 0
    noise = np.fft.ifft2(np.fft.fft2(phase[0] + 1j * phase[1]) * amplitude)
    light, tint = noise.real.astype(np.float32), noise.imag.astype(np.float32)
    return light / max(float(light.std()), 1e-6), tint / max(float(tint.std()), 1e-6)
