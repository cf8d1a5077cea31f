"""Camera-style images: each training image as another camera would have taken it.

They are made by others (CycleGAN for Market-1501 and DukeMTMC-reID, StarGAN for MSMT17) and lie in
``bounding_box_train_camstyle/`` beside the training folder, one per image and other camera:
``<stem>_fake_<own camera>to<camera>.jpg``, on MSMT17 ``<stem>_fake_<camera>.jpg``. Cameras count
from 1. Source: Zhong et al., Camera Style Adaptation, CVPR 2018; used by ECN and MMCL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crosswalk.data.readers.records import ImageSplits, Record

CAMSTYLE_FOLDER = "bounding_box_train_camstyle"

Naming = Literal["from_to", "to"]


@dataclass(frozen=True, slots=True)
class CamStyleFiles:
    """Where the camera-style images of a training set lie.

    Attributes:
        folder: The folder that holds them.
        num_cameras: Cameras are 1 to this number.
        naming: Whether names say both cameras (``from_to``) or the new one only (``to``).
    """

    folder: Path
    num_cameras: int
    naming: Naming

    def path(self, record: Record, camera_id: int) -> Path:
        """Return the image of ``record`` in the style of a camera: for its own camera, itself.

        Args:
            record: A training image with a known camera.
            camera_id: Camera to show it by, 1 to ``num_cameras``.

        Raises:
            ValueError: If one of the two cameras is not 1 to ``num_cameras``.

        Example:
            >>> files = CamStyleFiles(Path("fake"), 6, "from_to")
            >>> record = Record(Path("real/0002_c1s1_000451_03.jpg"), 2, camera_id=1)
            >>> files.path(record, 5).as_posix(), files.path(record, 1).as_posix()
            ('fake/0002_c1s1_000451_03_fake_1to5.jpg', 'real/0002_c1s1_000451_03.jpg')
        """
        for camera in (record.camera_id, camera_id):
            if not 1 <= camera <= self.num_cameras:
                raise ValueError(
                    f"{record.image_path} by camera {record.camera_id} has no image in the style "
                    f"of camera {camera_id}: cameras are 1 to {self.num_cameras}. Pass "
                    "data.camstyle=off."
                )
        if camera_id == record.camera_id:
            return record.image_path
        cameras = f"{record.camera_id}to{camera_id}" if self.naming == "from_to" else camera_id
        return self.folder / f"{record.image_path.stem}_fake_{cameras}.jpg"


def camstyle_files(splits: ImageSplits, num_cameras: int) -> CamStyleFiles:
    """Return where the camera-style images of ``splits`` should lie; nothing is looked for.

    The data set's name, not its path, says how they are named: a Market-1501 below a folder called
    ``msmt17`` keeps its names.

    Example:
        >>> splits = ImageSplits("MSMT17", Path("msmt17"), ".", (), (), ())
        >>> camstyle_files(splits, num_cameras=15).naming
        'to'
    """
    naming: Naming = "to" if "MSMT17" in splits.dataset else "from_to"
    return CamStyleFiles(splits.root / CAMSTYLE_FOLDER, num_cameras, naming)


def find_camstyle(splits: ImageSplits, num_cameras: int) -> CamStyleFiles | None:
    """Return where the camera-style images of the training images lie; None if there are none.

    Args:
        splits: The data set; its training cameras are 1 to ``num_cameras``.
        num_cameras: Number of cameras of the data set, in training or not.

    Raises:
        FileNotFoundError: If the folder is there, but not every image for every camera.
        ValueError: If a training image is by an unknown camera.

    Example:
        >>> find_camstyle(ImageSplits("Market-1501", Path("/nowhere"), ".", (), (), ()), 6) is None
        True
    """
    files = camstyle_files(splits, num_cameras)
    if not files.folder.is_dir():
        return None
    present = set(os.listdir(files.folder))
    missing = []
    expected = 0
    for record in splits.train:
        for camera_id in range(1, num_cameras + 1):
            path = files.path(record, camera_id)
            if camera_id != record.camera_id:
                expected += 1
                if path.name not in present:
                    missing.append(path.name)
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise FileNotFoundError(
            f"{files.folder} lacks {len(missing):,} of {expected:,} camera-style images: "
            f"{', '.join(missing[:3])}{more}. Fetch or make the rest of the images for "
            f"{splits.dataset} as it lies here, with cameras 1 to {num_cameras}, or train without "
            "them: data.camstyle=off."
        )
    return files
