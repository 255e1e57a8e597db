"""One set of detections from those on tiles of an image, or on augmented views of it.

A tile cuts objects, and neighboring tiles see the same object. Three facts decide what is kept:

1. What one view tells apart are different objects: at most one detection of a view joins a group.
2. A box that ends at an inner edge of its tile is a part. It is dropped where another view holds
   the object whole, and otherwise united with the other tiles' parts of the object.
3. Where two tiles overlap, both see the same pixels. Parts of one object agree there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as run_lengths
from torchvision.ops import batched_nms

from .views import RawDetections, Region, join

# A box side this near to a view's edge ends at it: 4 pixels, or 4 of a 512-pixel network input.
# benchmarks/tiles.py, sides 2 px off: with 2, parts of small objects are taken for whole ones.
EDGE_PIXELS = 4.0
EDGE_SHARE = 1 / 128  # of the view's longer side
# Two boxes of a small object may have a low IoU only because both are noisy.
NOISY_SIDE = 3.0  # largest distance between their sides, in widths of the edge
NOISY_IOU = 0.1
COVERED = 0.7  # share of a part's area that lies in the object, and on which two parts agree
WEAK = 0.25  # a box scored below this share of another's does not replace it


def merge_tiles(
    parts: Sequence[tuple[Region, RawDetections]],
    whole: RawDetections | None,
    image_size: tuple[int, int],
    *,
    nms_threshold: float,
    max_detections: int,
) -> RawDetections:
    """Return each object of an image once, from the detections on its tiles.

    A box that a tile cuts is dropped where another tile or the whole image has most of it in a box
    of the same class that is not cut. Parts of an object that is cut everywhere become the smallest
    box around them, with the highest of their scores and the union of their masks. Of an object's
    boxes that are not cut, the one with the highest score is kept; `whole` supplies it only where
    no tile holds the object. The order of tiles does not matter.

    Without overlap, two objects of a class that meet at a tile's edge with the same extent along
    it look like one object that is cut there, and become one.

    Args:
        parts: each tile with its detections: boxes and masks in pixels of the whole image.
        whole: detections on the whole image.
        image_size: height and width of the image, in pixels.
        nms_threshold: IoU above which only the better of two boxes of a class is kept.
        max_detections: as many as are returned at most.

    Returns:
        The detections by descending score. A single tile that is the whole image keeps its own.
    """
    image = (0, 0, image_size[1], image_size[0])
    views = sorted(parts, key=lambda part: (part[0], *(part[1][n].tolist() for n in (1, 0))))
    if len(views) == 1 and views[0][0] == image:
        return _best(views[0][1], max_detections)
    if whole is not None:
        views.append((image, whole))
    if not views:
        return RawDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    everything = join([found for _, found in views])
    seen = _see(views, everything, image, whole is not None)
    groups, covered = _whole_objects(seen, nms_threshold)
    objects = [[_choose(seen, group)] for group in groups]
    objects += _join_parts(seen, np.flatnonzero(seen.is_cut & ~covered))
    return _suppress(_unite(everything, objects), nms_threshold, max_detections)


def merge_augmented(
    parts: Sequence[RawDetections], *, nms_threshold: float, max_detections: int
) -> RawDetections:
    """Return each object once, from detections on views of the same image (flips, scales).

    Each box not yet grouped, best first, takes from every other view the best box of its class
    with an IoU above `nms_threshold`. A group's box is the mean weighted by score. Its score is
    the sum of scores divided by the number of views, so a box that one view alone sees counts
    less. Its mask is that of its best box. The order of views does not matter.

    Args:
        parts: detections on each of one or more views, in pixels of the image.
        nms_threshold: IoU above which boxes of a class are the same object.
        max_detections: as many as are returned at most.

    Returns:
        The detections by descending score.
    """
    everything = join(list(parts))
    view = np.repeat(np.arange(len(parts)), [len(part.scores) for part in parts])
    boxes, scores = everything.boxes.double().numpy(), everything.scores.double().numpy()
    classes = everything.classes.numpy()
    weights = np.maximum(scores, np.finfo(np.float32).tiny)  # a score may be 0
    free = np.lexsort((*boxes.T, classes, -scores))
    leaders, mean_boxes, mean_scores = [], [], []
    while free.size:
        leader = free[0]
        here, others = boxes[[leader]], boxes[free]
        same = _ious(here, others, _intersections(here, others))[0] > nms_threshold
        same &= classes[free] == classes[leader]
        same[0] = True
        group = free[same]
        group = group[np.sort(np.unique(view[group], return_index=True)[1])]
        leaders.append(leader)
        mean_boxes.append(np.average(boxes[group], axis=0, weights=weights[group]))
        mean_scores.append(scores[group].sum() / len(parts))
        free = free[~same]
    chosen = everything.take(torch.tensor(leaders, dtype=torch.int64))
    voted = chosen._replace(
        boxes=torch.tensor(np.reshape(mean_boxes, (-1, 4)), dtype=torch.float32),
        scores=torch.tensor(mean_scores, dtype=torch.float32),
    )
    return _best(voted, max_detections)


@dataclass(frozen=True)
class _Seen:
    """All N detections, view after view, and what is known of each of the V views.

    Attributes:
        boxes: (N, 4) float64.
        scores: (N,) float64.
        classes: (N,).
        view: (N,) the view that each is of.
        cut: (N, 4) the sides (left, top, right, bottom) that end at an inner edge of the view.
        is_cut: (N,) one of the sides is.
        regions: (V, 4) float64.
        edge: (V,) width of the edge, in pixels.
        whole_view: number of the view that is the whole image, -1 without one.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    view: np.ndarray
    cut: np.ndarray
    is_cut: np.ndarray
    regions: np.ndarray
    edge: np.ndarray
    whole_view: int


def _see(
    views: Sequence[tuple[Region, RawDetections]],
    everything: RawDetections,
    image: Region,
    has_whole: bool,
) -> _Seen:
    regions = np.array([region for region, _ in views], np.float64)
    edge = np.maximum(EDGE_PIXELS, EDGE_SHARE * (regions[:, 2:] - regions[:, :2]).max(axis=1))
    view = np.repeat(np.arange(len(views)), [len(found.scores) for _, found in views])
    boxes = everything.boxes.double().numpy()
    outward = np.array([-1, -1, 1, 1])
    near = (boxes - regions[view]) * outward >= -edge[view, None]
    cut = near & (regions != image)[view]
    scores, classes = everything.scores.double().numpy(), everything.classes.numpy()
    whole_view = len(views) - 1 if has_whole else -1
    return _Seen(boxes, scores, classes, view, cut, cut.any(axis=1), regions, edge, whole_view)


def _pairs(seen: _Seen, of: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield two views that overlap or share an edge, and the numbers among `of` in each."""
    bounds = np.searchsorted(seen.view[of], np.arange(len(seen.regions) + 1))
    members = [of[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]
    for first, region in enumerate(seen.regions):
        later = seen.regions[first + 1 :]
        meets = (later[:, :2] <= region[2:]).all(axis=1) & (later[:, 2:] >= region[:2]).all(axis=1)
        for second in (first + 1 + np.flatnonzero(meets)).tolist():
            if members[first].size and members[second].size:
                yield first, second, members[first], members[second]


def _whole_objects(seen: _Seen, nms_threshold: float) -> tuple[list[list[int]], np.ndarray]:
    """Return groups of uncut detections, one group an object, and which parts those cover (N,)."""
    covered = np.zeros(len(seen.boxes), bool)
    edges: list[tuple[float, int, int]] = []
    for first, second, left, right in _pairs(seen, np.arange(len(seen.boxes))):
        left = left[_meets(seen.boxes[left], seen.regions[second])]
        right = right[_meets(seen.boxes[right], seen.regions[first])]
        for parts, wholes in ((left, right), (right, left)):
            parts, wholes = parts[seen.is_cut[parts]], wholes[~seen.is_cut[wholes]]
            covered[parts] |= _are_covered(seen, parts, wholes)
        left, right = left[~seen.is_cut[left]], right[~seen.is_cut[right]]
        shared = _intersections(seen.boxes[left], seen.boxes[right])
        shared[seen.classes[left][:, None] != seen.classes[right]] = 0
        iou = _ious(seen.boxes[left], seen.boxes[right], shared)
        rows, columns = np.nonzero((iou > NOISY_IOU) & (iou <= nms_threshold))
        apart = np.abs(seen.boxes[left[rows]] - seen.boxes[right[columns]]).max(axis=1)
        far = apart > NOISY_SIDE * max(seen.edge[first], seen.edge[second])
        iou[rows[far], columns[far]] = 0
        iou[iou <= min(NOISY_IOU, nms_threshold)] = 0
        edges += _match(iou, left, right)
    return _group(seen, np.flatnonzero(~seen.is_cut), edges), covered


def _are_covered(seen: _Seen, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Return which parts, all of one view, lie mostly in one of the wholes."""
    if not parts.size:
        return np.zeros(0, bool)
    boxes = seen.boxes[parts]
    outward = seen.edge[seen.view[parts[0]]] * np.array([-1, -1, 1, 1])
    shared = _intersections(boxes, seen.boxes[wholes] + outward)
    covers = (shared > 0) & (shared >= COVERED * _areas(boxes)[:, None])
    covers &= seen.classes[parts][:, None] == seen.classes[wholes]
    covers &= seen.scores[wholes] >= WEAK * seen.scores[parts][:, None]
    return covers.any(axis=1)


def _join_parts(seen: _Seen, parts: np.ndarray) -> list[list[int]]:
    """Return groups of cut detections, one group an object."""
    edges: list[tuple[float, int, int]] = []
    for first, second, left, right in _pairs(seen, parts):
        edge = max(seen.edge[first], seen.edge[second])
        low = np.maximum(seen.regions[first, :2], seen.regions[second, :2])
        high = np.minimum(seen.regions[first, 2:], seen.regions[second, 2:])
        # Tiles may share no more than an edge: compare what a cut box would be a little beyond it.
        lack = np.maximum(0, 4 * edge - (high - low)) / 2
        zone = np.concatenate([low - lack, high + lack])
        beyond = np.array([-np.inf, -np.inf, np.inf, np.inf])
        in_zone = [
            _clip(np.where(seen.cut[side], beyond, seen.boxes[side]), zone)
            for side in (left, right)
        ]
        shared = _intersections(*in_zone, least_side=edge)
        shared[seen.classes[left][:, None] != seen.classes[right]] = 0
        areas = [_areas(boxes) for boxes in in_zone]
        agree = shared >= COVERED * np.minimum(areas[0][:, None], areas[1])
        edges += _match(np.where(agree, _ious(*in_zone, shared), 0), left, right)
    return _absorb(seen, _group(seen, parts, edges))


def _absorb(seen: _Seen, groups: list[list[int]]) -> list[list[int]]:
    """Return the groups, those inside the box of a larger one merged into it."""
    if not groups:
        return []
    hulls = np.array([_hull(seen.boxes[group]) for group in groups])
    scores = np.array([seen.scores[group].max() for group in groups])
    classes = np.array([seen.classes[group[0]] for group in groups])
    areas = _areas(hulls)
    free = np.ones(len(groups), bool)
    for number in np.lexsort((*hulls.T, -areas)):
        if not free[number] or len(groups[number]) == 1:
            continue
        inside = free & (classes == classes[number]) & (scores[number] >= WEAK * scores)
        shared = _intersections(hulls[[number]], hulls)[0]
        inside &= (shared > 0) & (shared >= COVERED * areas)
        inside[number] = False
        free &= ~inside
        groups[number] = [*groups[number], *(n for g in np.flatnonzero(inside) for n in groups[g])]
    return [group for group, is_free in zip(groups, free, strict=True) if is_free]


def _match(weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> list[tuple[float, int, int]]:
    """Return (weight, left, right) of a one-to-one matching: largest weight first, none of 0."""
    pairs = []
    rows = np.arange(len(left))
    while weight.any():
        best = weight.argmax(axis=1)
        mutual = np.flatnonzero((weight.argmax(axis=0)[best] == rows) & (weight[rows, best] > 0))
        columns = best[mutual]
        found = weight[mutual, columns]
        pairs += zip(found.tolist(), left[mutual].tolist(), right[columns].tolist(), strict=True)
        weight[mutual] = 0
        weight[:, columns] = 0
    return pairs


def _group(
    seen: _Seen, members: np.ndarray, edges: list[tuple[float, int, int]]
) -> list[list[int]]:
    """Return the members in groups joined by edges, best edge first, one of each view a group."""
    groups = {number: [number] for number in members.tolist()}
    views = {number: {seen.view[number]} for number in groups}
    leader = {number: number for number in groups}
    for _, left, right in sorted(edges, key=lambda edge: (-edge[0], *edge[1:])):
        kept, joined = sorted((leader[left], leader[right]))
        if kept == joined or views[kept] & views[joined]:
            continue
        views[kept] |= views.pop(joined)
        for number in groups[joined]:
            leader[number] = kept
        groups[kept] += groups.pop(joined)
    return list(groups.values())


def _choose(seen: _Seen, group: list[int]) -> int:
    """Return the detection that stands for an object: the best of a tile that holds all of it."""
    if len(group) > 1:
        strong = seen.scores[group] >= WEAK * seen.scores[group].max()
        group = [number for number, is_strong in zip(group, strong, strict=True) if is_strong]
        for number in group:
            if seen.view[number] == seen.whole_view:
                room = seen.edge[seen.whole_view] * np.array([-1, -1, 1, 1])
                regions = seen.regions[seen.view[group]] + room
                holds = (_clip(seen.boxes[[number]], regions) == seen.boxes[number]).all(axis=1)
                others = [n for n, held in zip(group, holds, strict=True) if held and n != number]
                group = others or [number]
                break
    return max(group, key=lambda number: (seen.scores[number], -number))


def _unite(everything: RawDetections, groups: list[list[int]]) -> RawDetections:
    """Return one detection a group: box around all, highest score, all masks together."""
    boxes, scores = everything.boxes.clone(), everything.scores.clone()
    masks = None if everything.masks is None else list(everything.masks)
    for group in groups:
        if len(group) > 1:
            boxes[group[0]] = torch.from_numpy(_hull(everything.boxes[group].numpy()))
            scores[group[0]] = everything.scores[group].max()
            if masks is not None:
                union = run_lengths.merge([masks[number] for number in group])
                counts = union["counts"].decode("ascii")
                masks[group[0]] = {"size": list(union["size"]), "counts": counts}
    united = everything._replace(boxes=boxes, scores=scores, masks=masks)
    return united.take(torch.tensor(sorted(group[0] for group in groups), dtype=torch.int64))


def _suppress(found: RawDetections, nms_threshold: float, max_detections: int) -> RawDetections:
    ranked = _best(found, len(found.scores))
    boxes, scores = ranked.boxes.double(), ranked.scores.double()
    kept = batched_nms(boxes, scores, ranked.classes, nms_threshold)
    return ranked.take(kept.sort().values[:max_detections])


def _best(found: RawDetections, count: int) -> RawDetections:
    """Return at most `count` detections by descending score; equal scores keep their order."""
    return found.take(found.scores.argsort(descending=True, stable=True)[:count])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _intersections(left: np.ndarray, right: np.ndarray, least_side: float = 0) -> np.ndarray:
    """Return the area that boxes (N, 4) and (M, 4) share, (N, M); 0 below `least_side`."""
    x0, y0, x1, y1 = left.T[:, :, None]
    width = np.minimum(x1, right[:, 2]) - np.maximum(x0, right[:, 0])
    height = np.minimum(y1, right[:, 3]) - np.maximum(y0, right[:, 1])
    return width * height * ((width > least_side) & (height > least_side))


def _ious(left: np.ndarray, right: np.ndarray, shared: np.ndarray) -> np.ndarray:
    union = _areas(left)[:, None] + _areas(right) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _clip(boxes: np.ndarray, region: np.ndarray) -> np.ndarray:
    low, high = region[..., [0, 1, 0, 1]], region[..., [2, 3, 2, 3]]
    return np.clip(boxes, low, high)


def _hull(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _meets(boxes: np.ndarray, region: np.ndarray) -> np.ndarray:
    return ((boxes[:, :2] < region[2:]) & (boxes[:, 2:] > region[:2])).all(axis=1)
