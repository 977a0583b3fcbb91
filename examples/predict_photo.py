"""The hands of a photo: `python examples/predict_photo.py PHOTO`. Nothing needs to be trained.

Meshes are written into the current folder. Without the camera's focal length (`focal_px`) one is assumed: sizes and
places in the image hold, depth does not.
"""

import sys
from pathlib import Path

import numpy as np

from maskhand.predict import predict_hands, read_photo

photo = Path(sys.argv[1])
for number, hand in enumerate(predict_hands(read_photo(photo), bundle=None)):
    wrist_m, error_mm = hand.joints_cam_m[0], np.mean(hand.joint_error_mm)
    print(f"hand {number}: {hand.side}, wrist at {np.round(wrist_m, 3)} m, joints expected {error_mm:.1f} mm off")
    with Path(f"{photo.stem}_{number}.obj").open("w") as file:
        file.writelines(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in hand.vertices_cam_m)
        file.writelines(f"f {a} {b} {c}\n" for a, b, c in hand.faces + 1)
