"""The recipe of ``photo-d4``: the weights of ``photo-c4``, mirror images counting alike."""
