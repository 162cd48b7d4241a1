"""Classic control, each as it has been drawn since OpenAI Gym: pictures of one state, given the physical parameters."""

from typing import Any

import numpy as np

from jaxrl.reports.drawing.canvas import FAINT, INK, Canvas, Colour, Point

WIDTH, HEIGHT = 480, 320
WOOD, TEAL, RED, AXLE, GROUND = (202, 152, 101), (0, 150, 136), (204, 77, 77), (129, 132, 203), (226, 228, 233)


def cartpole(params: Any, state: Any) -> np.ndarray:
    """A pole on a cart; beyond the two posts the episode is over. An angle above 0 leans to the right."""
    edge, x, theta = float(params.x_threshold), float(state.x), float(state.theta)
    canvas = Canvas(WIDTH, HEIGHT, (0, 0.95), WIDTH / (2.15 * edge + 1))
    canvas.line([(-2 * edge, 0), (2 * edge, 0)], INK, 1.5)
    for post in (-edge, edge):
        canvas.line([(post, -0.12), (post, 0.12)], RED, 3)
    canvas.box((x - 0.35, -0.2), (x + 0.35, 0.2), INK)
    axle, long = (x, 0.12), 2 * float(params.length)  # `length` is half of the pole
    canvas.line([axle, (x + long * np.sin(theta), axle[1] + long * np.cos(theta))], WOOD, 9)
    canvas.circle(axle, 4, AXLE)
    return canvas.picture()


def pendulum(params: Any, state: Any) -> np.ndarray:
    """A rod on its pivot, at 0 when upright, turning counter-clockwise; the arrow is the torque that was applied."""
    canvas = Canvas(HEIGHT, HEIGHT, (0, 0), 0.39 * HEIGHT)
    theta = float(state.theta)
    canvas.circle((0, 0), 0.39 * HEIGHT, (250, 250, 252), FAINT)
    canvas.line([(0, 0), (-np.sin(theta), np.cos(theta))], RED, 22)
    share = float(np.ravel(state.last_u)[0]) / float(params.max_torque)
    if abs(share) > 0.02:
        _turn(canvas, share)
    canvas.circle((0, 0), 6, INK)
    return canvas.picture()


def _turn(canvas: Canvas, share: float, radius: float = 0.34) -> None:
    """A round arrow about the pivot, as long as the share of the largest torque: three quarters of a turn for 1."""
    end = np.pi / 2 + 1.5 * np.pi * np.clip(share, -1, 1)
    angles = np.linspace(np.pi / 2, end, 40)
    arc = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    canvas.line(arc, INK, 3)
    along = np.sign(share) * np.array([-np.sin(end), np.cos(end)])
    across = np.array([np.cos(end), np.sin(end)])
    canvas.polygon([arc[-1] + 0.12 * along, arc[-1] + 0.07 * across, arc[-1] - 0.07 * across], INK)


def acrobot(params: Any, state: Any) -> np.ndarray:
    """Two links that hang from a pivot at angles 0; the goal is to swing the tip above the line."""
    one, two = float(params.link_length_1), float(params.link_length_2)
    canvas = Canvas(HEIGHT, HEIGHT, (0, 0), HEIGHT / (2.2 * (one + two)))
    canvas.line([(-9, 1), (9, 1)], TEAL, 2)  # whatever the links: the rule compares with the number 1
    first, both = float(state.joint_angle1), float(state.joint_angle1) + float(state.joint_angle2)
    elbow = (one * np.sin(first), -one * np.cos(first))
    tip = (elbow[0] + two * np.sin(both), elbow[1] - two * np.cos(both))
    for points in ([(0, 0), elbow], [elbow, tip]):
        canvas.line(points, (0, 172, 193), 13)
    for joint in ((0, 0), elbow):
        canvas.circle(joint, 7, (211, 196, 60), INK)
    return canvas.picture()


def mountain_car(params: Any, state: Any) -> np.ndarray:
    """A car too weak for the hill it has to climb, and the flag on its top."""
    low, high, x = float(params.min_position), float(params.max_position), float(state.position)
    canvas = Canvas(WIDTH, HEIGHT, ((low + high) / 2, 0.62), WIDTH / (high - low))
    ground = [(u, _height(u)) for u in np.linspace(low, high, 121)]
    canvas.polygon([*ground, (high, -1), (low, -1)], GROUND)
    canvas.line(ground, INK, 1.5)
    goal = float(params.goal_position)
    top = _height(goal) + 0.16
    canvas.line([(goal, _height(goal)), (goal, top)], INK, 2)
    canvas.polygon([(goal, top), (goal, top - 0.06), (goal + 0.08, top - 0.03)], (235, 190, 20))
    _car(canvas, (x, _height(x)), np.arctan(1.35 * np.cos(3 * x)))
    return canvas.picture()


def _height(x: float) -> float:
    return 0.45 * np.sin(3 * x) + 0.55


def _car(canvas: Canvas, at: Point, angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def placed(points: list[Point]) -> np.ndarray:
        return np.asarray(at) + np.asarray(points) @ turn.T

    body: Colour = (70, 90, 160)
    canvas.polygon(placed([(-0.075, 0.022), (0.075, 0.022), (0.075, 0.06), (-0.075, 0.06)]), body)
    canvas.polygon(placed([(-0.045, 0.06), (0.045, 0.06), (0.03, 0.09), (-0.03, 0.09)]), body)
    for wheel in placed([(-0.043, 0.02), (0.043, 0.02)]):
        canvas.circle(tuple(wheel), 5.5, INK, (150, 152, 160))


STATES = {
    "gymnax/CartPole-v1": cartpole,
    "gymnax/Pendulum-v1": pendulum,
    "gymnax/Acrobot-v1": acrobot,
    "gymnax/MountainCar-v0": mountain_car,
    "gymnax/MountainCarContinuous-v0": mountain_car,
}
