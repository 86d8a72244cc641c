"""Everybody can read the pictures: contrast in light and dark, and arms apart in grayscale and to the colour-blind."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from repro.report import page, plots
from repro.report.probe_plot import COLOURS

CSS = (page.HERE / "page.css").read_text()
APART = 10.0  # in CIELAB; about 2.3 can just be told apart
# what a dichromat sees of a linear RGB colour (Machado, Oliveira and Fernandes 2009, severity 1)
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def scheme(css: str, place: int) -> dict[str, str]:
    """The colours of the light (0) or dark (1) scheme."""
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[place]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ TO_XYZ[1])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of a linear RGB colour, white as of a screen."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("place", [0, 1])
def test_text_has_contrast_4_5_and_lines_3_in_light_and_dark(place: int) -> None:
    colours = scheme(CSS, place)
    for ground in ("paper", "raised"):
        for name in ("ink", "soft", "link", "good", "bad", "warn"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["ink"], colours["notice"]) >= 4.5
    for name in (*(f"arm-{number}" for number in range(8)), "faint"):
        assert contrast(colours[name], colours["paper"]) >= 3, name


@pytest.mark.parametrize("colours", [scheme(CSS, 0), scheme(CSS, 1), COLOURS], ids=["light", "dark", "file"])
@pytest.mark.parametrize("seen", SEEN)
def test_the_four_arms_of_the_main_job_are_told_apart_by_the_colour_blind(colours: dict[str, str], seen: str) -> None:
    """More arms than four differ by marker, line and hatch: no eight colours stay apart for everybody."""
    looks = [lab(SEEN[seen] @ linear(colours[f"arm-{place}"])) for place in range(4)]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(looks, 2)) >= APART


def test_no_two_arms_share_marker_line_and_hatch() -> None:
    arms = [f"arm {number}" for number in range(11)]
    assert len({plots._line(arms, arm)["marker"] for arm in arms}) == 11
    assert len({plots._hatch(arms, arm) for arm in arms}) == 11
