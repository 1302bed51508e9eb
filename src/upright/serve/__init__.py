"""A page to try a model on, and a JSON endpoint: ``upright serve`` (``pip install 'upright[serve]'``)."""

from . import _installed as _installed  # isort: skip
from .app import create_app as create_app
from .limits import Limits as Limits
from .readings import DRAWN as DRAWN
from .server import LOCAL as LOCAL
from .server import address_of as address_of
from .server import listen as listen
from .server import make_server as make_server
from .server import serve as serve
from .service import Ask as Ask
from .service import Service as Service
