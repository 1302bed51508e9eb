"""A report as one page that needs nothing else: no script, no request; light and dark; wide and narrow."""

from .page import page as page
from .page import write_page as write_page
