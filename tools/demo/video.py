"""Short videos whose class is a relation between distant moments and places.

At the start a video shows two coloured patches, an orange and a blue one, one
of them with vertical and the other with horizontal stripes; at its end, after
a pause, a grey patch with the stripes of one of the two. The class is the
colour that these stripes had at the start. Every class holds every start and
every end equally often, so a network that looks at single frames and adds up
what it finds in them cannot tell more than chance. One that can look from the
end of the video to the patch with the same stripes at its start reads the
class there.

In one half of the videos the grey patch stands where the patch with its
stripes stood: to look back in time at the same place is enough. In the other
half it is at least :data:`MIN_DISTANCE` px away. That is more than what a
position of the features sees to both sides where the block of
``configs/demo`` stands, 2 * 33 px, so no position sees both patches there:

=====================  ======  ==========  ===================
layer                  stride  kernel      receptive field, px
=====================  ======  ==========  ===================
stem convolution       2       7           7
max pooling            4       3           11
layer1, 4 convs        4       3           11 + 4 * 8 = 43
layer2.0, first conv   8       3           43 + 8 = 51
layer2.0, second conv  8       3           51 + 16 = 67
the block
layer2.1, 2 convs      8       3           67 + 2 * 16 = 99
=====================  ======  ==========  ===================
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np

from .scene import LAMP_COLOURS, sample_balanced

HEIGHT, WIDTH = 64, 128
NUM_FRAMES = 16
#: Frames that show the coloured patches, and the grey one.
START, END = range(0, 6), range(10, 16)
PATCH = 24  # px
#: Smallest horizontal gap in pixels between the patches of a far pair.
MIN_DISTANCE = 68
PERIOD = 8  # of the stripes, px


class Clip(NamedTuple):
    """A video and what it shows.

    Attributes:
        label (int): Its class, the index of the matching patch's colour.
        frames (np.ndarray): RGB, shape ``(T, H, W, 3)``, uint8.
        patches (tuple[tuple[int, int], ...]): Corners ``(x, y)`` of the
            patch that matches, of the other one, and of the grey one.
    """

    label: int
    frames: np.ndarray
    patches: tuple[tuple[int, int], ...]


def generate_dataset(
    root: str | Path, num_train: int = 800, num_val: int = 200, seed: int = 0
) -> None:
    """Write the dataset: MP4 files and their lists, as of Kinetics-400.

    The same arguments give the same frames. Files that are already there are
    overwritten.

    Args:
        root (str | Path): Folder to write to, made if missing. Gets
            ``videos_train/``, ``videos_val/`` and
            ``kinetics400_{train,val}_list_videos.txt``.
        num_train (int): Videos to train on. Defaults to 800.
        num_val (int): Videos to evaluate on. Defaults to 200.
        seed (int): Seed of both random streams. Defaults to 0.

    Raises:
        ValueError: If there is not at least one video of every kind in each
            subset.
        OSError: If OpenCV cannot write MP4 files.
    """
    root = Path(root)
    kinds = 2 * 2 * 2  # class, stripes of the grey patch, far or not
    for subset, clips in sample_balanced(kinds, num_train, num_val, seed, sample_clip):
        folder = root / f'videos_{subset}'
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, clip in enumerate(clips, start=1):
            name = f'{number:06d}.mp4'
            _write_video(folder / name, clip.frames)
            lines.append(f'{name} {clip.label}\n')
        (root / f'kinetics400_{subset}_list_videos.txt').write_text(''.join(lines))


def sample_clip(rng: np.random.Generator, kind: int) -> Clip:
    """Sample one video.

    Args:
        rng (numpy.random.Generator): Source of everything but the kind.
        kind (int): 0 to 7: bit 0 is the class, bit 1 the direction of the
            stripes that match, bit 2 whether the grey patch is far away.

    Returns:
        Clip: The video and what it shows.
    """
    label, vertical, far = kind & 1, kind >> 1 & 1, kind >> 2 & 1
    patches = place_patches(rng, HEIGHT, WIDTH, MIN_DISTANCE if far else None)

    frames = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), rng.uniform(20, 60))
    match, other, grey = patches
    for time in START:
        draw_patch(frames[time], match, vertical, LAMP_COLOURS[label])
        draw_patch(frames[time], other, 1 - vertical, LAMP_COLOURS[1 - label])
    for time in END:
        draw_patch(frames[time], grey, vertical, (200, 200, 200))
    frames += rng.normal(0, 6, frames.shape)
    frames = frames.clip(0, 255).round().astype(np.uint8)
    return Clip(label, frames, patches)


def place_patches(
    rng: np.random.Generator, height: int, width: int, gap: int | None
) -> tuple[tuple[int, int], ...]:
    """Sample the places of three patches in an image.

    Args:
        rng (numpy.random.Generator): Source of everything.
        height (int): Of the image.
        width (int): Of the image.
        gap (int, optional): Smallest horizontal gap between the third patch
            and the others, in pixels. None puts it where the first is.

    Returns:
        tuple[tuple[int, int], ...]: Corners ``(x, y)``.
    """
    # two above each other on the left, then mirrored or not
    rows = rng.permutation(
        [
            int(rng.integers(0, height // 2 - PATCH + 1)),
            int(rng.integers(height // 2, height - PATCH + 1)),
        ]
    ).tolist()
    columns = rng.integers(0, 9, 2).tolist()
    first, second = zip(columns, rows)
    third = first
    if gap is not None:
        left = max(columns) + PATCH + gap
        third = (
            int(rng.integers(left, width - PATCH + 1)),
            int(rng.integers(0, height - PATCH + 1)),
        )
    patches = first, second, third
    if rng.random() < 0.5:
        patches = tuple((width - PATCH - x, y) for x, y in patches)
    return patches


def draw_patch(
    image: np.ndarray,
    corner: tuple[int, int],
    vertical: int,
    colour: tuple[int, int, int],
) -> None:
    """Stripes of a colour on what is there."""
    x, y = corner
    bright = np.arange(PATCH) % PERIOD < PERIOD // 2
    stripes = np.broadcast_to(bright, (PATCH, PATCH))
    if not vertical:
        stripes = stripes.T
    image[y : y + PATCH, x : x + PATCH][stripes] = colour


def _write_video(path: Path, frames: np.ndarray) -> None:
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), 8, (WIDTH, HEIGHT)
    )
    if not writer.isOpened():
        raise OSError(f'OpenCV cannot write {path}: it has no MPEG-4 encoder')
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def find_queries(root: str | Path) -> list[tuple[Path, tuple[float, float]]]:
    """Choose a video of each class in which the patches are far apart.

    Args:
        root (str | Path): Folder of a generated dataset.

    Returns:
        list[tuple[Path, tuple[float, float]]]: For each class, the first
        such video for validation and the pixel (column, row) in the middle
        of its grey patch.
    """
    root = Path(root)
    list_file = root / 'kinetics400_val_list_videos.txt'
    queries = {}
    for line in list_file.read_text().splitlines():
        name, label = line.split()
        video = mmcv.VideoReader(str(root / 'videos_val' / name))
        start, end = (_bright_pixels(video[t]) for t in (0, NUM_FRAMES - 1))
        gap = max(end[1].min() - start[1].max(), start[1].min() - end[1].max())
        if gap > MIN_DISTANCE // 2 and int(label) not in queries:
            middle = float(end[1].mean()), float(end[0].mean())
            queries[int(label)] = root / 'videos_val' / name, middle
    return [queries[label] for label in sorted(queries)]


def _bright_pixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of what is no background."""
    return np.nonzero(image.max(axis=2) > 130)
