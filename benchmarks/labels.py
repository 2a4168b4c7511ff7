"""Labels beside points, where they cover neither points nor lines nor each other."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Label:
    """Words that belong to a point of the data, or to any of several (the points of one line)."""

    points: Points
    text: str
    color: str
    size: float = 10.0

    @property
    def dark_color(self) -> Any:
        """The colour of the words: letters are thinner than markers, and need more contrast to be read."""
        return tuple(0.75 * part for part in to_rgb(self.color))


#: Where a label may stand, seen from its point: near places first, right and left before above and below.
DIRECTIONS = [math.radians(degrees) for degrees in (0, 180, 90, -90, 35, -35, 145, -145)]
PLACES = list(itertools.product((9.0, 13.0, 18.0, 26.0, 36.0), DIRECTIONS))
#: From this distance on (in points of 1/72 inch), a thin line leads from the label to its point.
FAR = 20.0


def around(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Boxes around points, [n, 4] of left, bottom, right, top in pixels."""
    return np.concatenate([pixels - radius, pixels + radius], -1)


def shared_area(box: Bbox, others: np.ndarray) -> float:
    """The area in square pixels that the box has in common with others, [n, 4] of left, bottom, right, top."""
    width = np.minimum(box.x1, others[:, 2]) - np.maximum(box.x0, others[:, 0])
    height = np.minimum(box.y1, others[:, 3]) - np.maximum(box.y0, others[:, 1])
    return float(np.sum(np.maximum(width, 0) * np.maximum(height, 0)))


def along(axes: Axes, line: Points, scale: float) -> np.ndarray:
    """Small boxes along a line, close to each other."""
    boxes = [np.zeros((0, 4))]
    for start, end in itertools.pairwise(axes.transData.transform(line)):
        steps = max(2, int(np.linalg.norm(end - start) / (3 * scale)))
        boxes.append(around(np.linspace(start, end, steps), 2 * scale))
    return np.concatenate(boxes)


def place(axes: Axes, labels: Sequence[Label], markers: Points, lines: Sequence[Points] = ()) -> None:
    """Writes each label at the nearest place that is free.

    Args:
      axes: with its scales and limits final.
      labels: the important ones first.
      markers: points that labels should not cover, in the data's coordinates.
      lines: likewise.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # now the layout is final, and pixels are pixels
    renderer = FigureCanvasAgg(figure).get_renderer()
    scale = figure.dpi / 72
    frame = np.array([axes.get_window_extent(renderer).extents])
    occupied = around(axes.transData.transform(markers), 5.5 * scale)
    crossed = np.concatenate([np.zeros((0, 4)), *(along(axes, line, scale) for line in lines)])
    for label in labels:
        text = written(axes, label, label.points[0], 0.0, 0.0)
        extent = text.get_window_extent(renderer)
        text.remove()
        best = None
        for order, (point, (distance, direction)) in enumerate(itertools.product(label.points, PLACES)):
            box = box_at(axes.transData.transform(point), extent, distance * scale, direction).padded(scale)
            outside = box.width * box.height - shared_area(box, frame)
            # A place further from its point costs a little, one at another point of the same line nearly nothing.
            farther = 4 * scale * (order % len(PLACES)) + order // len(PLACES)
            cost = 10 * outside + 6 * shared_area(box, occupied) + 4 * shared_area(box, crossed) + farther
            if best is None or cost < best[0]:
                best = (cost, point, distance, direction, box)
        assert best is not None  # there is at least one point and one place
        _, point, distance, direction, box = best
        written(axes, label, point, distance, direction)
        occupied = np.concatenate([occupied, [box.extents]])


def alignment(direction: float) -> tuple[float, float]:
    """Which point of the words lies nearest to what they label: 0 is left or bottom, 0.5 the middle, 1 right or top."""
    x, y = math.cos(direction), math.sin(direction)
    return (0.5 if abs(x) < 0.3 else float(x < 0)), (0.5 if abs(y) < 0.3 else float(y < 0))


def box_at(pixel: np.ndarray, extent: Bbox, distance: float, direction: float) -> Bbox:
    """Where words of such an extent come to stand, in pixels."""
    horizontal, vertical = alignment(direction)
    left = pixel[0] + distance * math.cos(direction) - horizontal * extent.width
    bottom = pixel[1] + distance * math.sin(direction) - vertical * extent.height
    return Bbox.from_bounds(left, bottom, extent.width, extent.height)


def written(axes: Axes, label: Label, point: tuple[float, float], distance: float, direction: float) -> Any:
    """The label at a distance (in points of 1/72 inch) and direction from its point."""
    horizontal, vertical = alignment(direction)
    line = {"arrowstyle": "-", "color": label.color, "linewidth": 0.6, "shrinkB": 5}
    return axes.annotate(
        label.text,
        point,
        xytext=(distance * math.cos(direction), distance * math.sin(direction)),
        textcoords="offset points",
        color=label.dark_color,
        fontsize=label.size,
        horizontalalignment={0.0: "left", 0.5: "center", 1.0: "right"}[horizontal],
        verticalalignment={0.0: "bottom", 0.5: "center", 1.0: "top"}[vertical],
        arrowprops=line if distance > FAR else None,
    )


def beside(axes: Axes, labels: Sequence[Label], size: float) -> None:
    """Writes labels at the right of the axes, at the height of their points but never on each other."""
    figure: Any = axes.figure
    figure.draw_without_rendering()
    gap = 1.3 * size * figure.dpi / 72
    chosen = sorted(labels, key=lambda label: label.points[0][1])
    wanted = [axes.transData.transform(label.points[0])[1] for label in chosen]
    for label, height in zip(chosen, spread(wanted, gap), strict=True):
        position = axes.transAxes.inverted().transform((0, height))[1]
        axes.text(
            1.02, position, label.text, transform=axes.transAxes, color=label.dark_color, fontsize=size, va="center"
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Ascending positions moved as little as it takes to have ``gap`` between neighbours."""
    # Groups that would touch are joined; a group stands evenly spaced around the mean of what its members want.
    groups: list[list[float]] = []
    for position in positions:
        groups.append([position])
        while len(groups) > 1 and stretch(groups[-2], gap)[1] + gap > stretch(groups[-1], gap)[0]:
            last = groups.pop()
            groups[-1] += last
    placed = []
    for group in groups:
        low, _ = stretch(group, gap)
        placed += [low + gap * i for i in range(len(group))]
    return placed


def stretch(group: Sequence[float], gap: float) -> tuple[float, float]:
    """Where a group begins and ends."""
    half = gap * (len(group) - 1) / 2
    middle = sum(group) / len(group)
    return middle - half, middle + half
