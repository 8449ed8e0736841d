"""Lines over the steps of a training, as SVG in the page."""

from __future__ import annotations

from distill.studio.html import Html, escape

__all__ = ["curves"]


def curves(title: str, lines: dict[str, list[tuple[float, float]]]) -> Html:
    """Lines over the same steps: the first one whole, the others dashed with a dot at each point."""
    known = {name: points for name, points in lines.items() if points}
    points = [point for line in known.values() for point in line]
    if len(points) < 2:
        return Html("")
    width, height, left = 640, 160, 44
    xs, ys = [x for x, _ in points], [y for _, y in points]
    first, top, span = min(xs), max(ys), (max(ys) - min(ys)) or 1.0
    across, down = (width - left - 4) / ((max(xs) - first) or 1), (height - 28) / span
    drawn: list[str] = []
    for number, line in enumerate(known.values()):
        places = [(left + (x - first) * across, 8 + (top - y) * down) for x, y in line]
        dash = " stroke-dasharray='5 3'" if number else ""
        drawn.append(f"<polyline points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in places)}'{dash}/>")
        if number or len(line) < 30:
            drawn += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.5'/>" for x, y in places]
    said = ", ".join(f"{name}{' (dashed)' if number else ''}" for number, name in enumerate(known))
    return Html(
        f"<svg viewBox='0 0 {width} {height}' width={width} height={height} role=img aria-label='{escape(title)}'>"
        f"<text x=0 y=14>{top:.3g}</text><text x=0 y={height - 18}>{min(ys):.3g}</text>"
        f"<text x={left} y={height - 4}>step {first:g}</text>"
        f"<text x={width - 60} y={height - 4}>step {max(xs):g}</text>{''.join(drawn)}</svg>"
        f"<p class=dim>{escape(title)}: {escape(said)}</p>"
    )
