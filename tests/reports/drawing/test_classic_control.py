"""Drawings put things where geometry says."""

from types import SimpleNamespace as Of

import numpy as np
import pytest

from jaxrl.reports.drawing.classic_control import RED, WOOD, acrobot, cartpole, mountain_car, pendulum

POLE = Of(x_threshold=2.4, length=0.5)
HILL = Of(min_position=-1.2, max_position=0.6, goal_position=0.5)


def middle(picture, colour, near=40):
    """(x, y) in pixels, y downwards: the mean of what has about this colour."""
    y, x = np.nonzero(np.abs(picture.astype(int) - colour).sum(axis=-1) < near)
    return np.array([x.mean(), y.mean()])


def is_picture(picture):
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_the_pole_leans_by_its_angle_and_the_cart_rolls_by_its_position():
    upright, leaning, aside = (
        cartpole(POLE, Of(x=x, theta=theta)) for x, theta in [(0.0, 0.0), (0.0, 0.2), (1.0, 0.0)]
    )
    assert all(map(is_picture, (upright, leaning, aside)))
    scale = 480 / (2.15 * 2.4 + 1)  # pixels a metre
    up, lean, moved = (middle(p, WOOD) for p in (upright, leaning, aside))
    # The middle of a pole one metre long lies half a metre from the axle: 0.5 sin θ to the right, 0.5 cos θ above.
    assert lean[0] - up[0] == pytest.approx(0.5 * np.sin(0.2) * scale, abs=1)
    assert lean[1] - up[1] == pytest.approx(0.5 * (1 - np.cos(0.2)) * scale, abs=1)
    assert moved - up == pytest.approx([scale, 0], abs=0.5)
    long = cartpole(Of(x_threshold=2.4, length=1.0), Of(x=0.0, theta=0.0))
    assert up[1] - middle(long, WOOD)[1] == pytest.approx(0.5 * scale, abs=3)


def test_the_pendulum_turns_counter_clockwise_and_shows_its_torque():
    params = Of(max_torque=2.0)
    up, left = (pendulum(params, Of(theta=theta, last_u=0.0)) for theta in (0.0, np.pi / 2))
    assert middle(up, RED)[1] < 160 and middle(left, RED)[0] < 160
    assert middle(left, RED)[1] == pytest.approx(160, abs=1) == middle(up, RED)[0]
    pushed, back = (pendulum(params, Of(theta=np.pi, last_u=u)) for u in (np.array([1.0]), np.array([-1.0])))
    rest = pendulum(params, Of(theta=np.pi, last_u=0.0))

    def side(picture):  # where the arrow lies: of what is drawn anew
        return np.nonzero((picture != rest).any(axis=-1))[1].mean()

    assert side(pushed) < 155 and side(back) > 165


def test_acrobot_hangs_at_zero_and_its_tip_crosses_the_line_when_gymnax_says_so():
    params = Of(link_length_1=1.0, link_length_2=1.0)
    down, up = (acrobot(params, Of(joint_angle1=angle, joint_angle2=0.0)) for angle in (0.0, np.pi))
    arm = (0, 172, 193)
    assert middle(down, arm)[1] > 160 > middle(up, arm)[1]
    teal = np.nonzero((np.abs(up.astype(int) - (0, 150, 136)).sum(axis=-1) < 20)[:, 5])[0]
    assert teal.mean() == pytest.approx(160 - 320 / 4.4, abs=1)
    right = acrobot(params, Of(joint_angle1=np.pi / 2, joint_angle2=0.0))
    assert middle(right, arm)[0] > 200


def test_the_car_stands_on_the_hill():
    blue = (70, 90, 160)
    valley, slope = (mountain_car(HILL, Of(position=x)) for x in (-np.pi / 6, 0.3))
    scale = 480 / 1.8
    moved = middle(slope, blue) - middle(valley, blue)
    assert moved[0] == pytest.approx((0.3 + np.pi / 6) * scale, abs=12)
    assert moved[1] == pytest.approx(-0.45 * (np.sin(0.9) + 1) * scale, abs=12)
