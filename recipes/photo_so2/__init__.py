"""The recipe of ``photo-so2`` and ``photo-c8``: upright photos, no labels, any angle."""
