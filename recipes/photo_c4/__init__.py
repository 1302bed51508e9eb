"""The recipe of ``photo-c4``: upright photos, no labels, quarter turns."""
