"""Colours that are used together can be told apart by everyone, in both schemes."""

import itertools

import numpy as np
import pytest
from colorspacious import cspace_convert

from stages.plots import DARK, GLYPHS, LIGHT, MARKERS

SIGHTS = ("normal", "deuteranomaly", "protanomaly")
APART = 10  # Euclidean distance in CAM02-UCS, in which 1 is about the least that is seen (Luo, Cui and Li 2006)


def seen(colour: str, sight: str) -> np.ndarray:
    """(J', a', b') of a colour as somebody of that sight sees it (Machado, Oliveira and Fernandes 2009, all of it)."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    if sight != "normal":
        space = {"name": "sRGB1+CVD", "cvd_type": sight, "severity": 100}
        rgb = np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1)
    return cspace_convert(rgb, "sRGB1", "CAM02-UCS")


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("colours", [LIGHT.series, LIGHT.parts, DARK.series, DARK.parts], ids=str)
def test_any_two_colours_are_apart(colours, sight):
    looks = {colour: seen(colour, sight) for colour in colours}
    near = [
        (one, other)
        for one, other in itertools.combinations(colours, 2)
        if np.linalg.norm(looks[one] - looks[other]) < APART
    ]
    assert near == []


def test_a_mark_is_one_shape_in_figures_and_in_words():
    assert len(MARKERS) == len(GLYPHS) == len(set(GLYPHS)) == len(LIGHT.series)
