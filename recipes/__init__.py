"""How the ready-made canonicalizers were made."""
