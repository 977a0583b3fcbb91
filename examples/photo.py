"""The hands of a photo: `python examples/photo.py PHOTO`. Nothing needs to be trained.

Overlay, meshes and JSON are written into the folder `hands`. Where the photo does not tell its focal length, and it is
not given (`predict(photo, focal_px=...)`), one is assumed: sizes and places in the image hold, depth does not.
"""

import sys

import maskhand

hands = maskhand.load().predict(sys.argv[1])
for number, hand in enumerate(hands):
    wrist_m, error_mm = hand.joints_cam_m[0].round(3), hand.joint_error_mm.mean()
    print(f"hand {number}: {hand.side}, wrist at {wrist_m} m, joints expected {error_mm:.1f} mm off")
hands.save("hands")
