"""The main job on data that installed packages bundle: photos and digits. Run it with ``upright demo``."""

from .digits import digits_demo as digits_demo
from .photos import photo_demo as photo_demo
