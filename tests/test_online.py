"""Names that the hub does not have, and a hub that is not there: told at once, whatever is asked for.

Nothing leaves this machine: the hub is a server of the tests' own, or an address that cannot be looked up.
"""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from upright import hub
from upright._online import hub_answers
from upright.data import open_data
from upright.integrations.models import ModelError, load_model


@pytest.fixture
def looked_up(monkeypatch, tmp_path):
    """The machine has no network; the names that it looked up."""
    names = []

    def absent(host, *args, **kwargs):
        names.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", absent)
    return names


@pytest.fixture
def served(monkeypatch):
    """A hub that answers every question with one status; what was asked."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        status, said = 404, "RepoNotFound"

        def do_GET(self):
            asked.append(self.path)
            self.send_response(self.status)
            self.send_header("X-Error-Code", self.said)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Hub, asked
    server.shutdown()
    server.server_close()


def test_an_absent_hub_is_asked_once(looked_up):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="no folder 'someone/typo' exists here, the hub cannot be reached"):
        load_model("someone/typo")
    with pytest.raises(hub.LoadError, match="'someone/typo' is no folder here and could not be fetched"):
        hub.load_canonicalizer("someone/typo")
    assert len(looked_up) in (2, 3)  # once each, and the hub's client for itself


def test_an_absent_hub_is_asked_once_for_data(looked_up):
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match=r"no folder or file 'nowhere' exists here, .* cannot be reached"):
        open_data("nowhere")
    assert len(looked_up) in (1, 2)


def test_names_that_no_repository_has_are_not_asked_for(looked_up):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=r"'photo--c4' cannot be a name on the hub; or give a transformers"):
        load_model("photo--c4")
    with pytest.raises(ValueError, match="'-photos' cannot be a name on the hub"):
        open_data("-photos")
    with pytest.raises(hub.LoadError, match="no saved canonicalizer 'photo-c5'"):
        hub.load_canonicalizer("photo-c5")
    assert not looked_up


def test_what_the_hub_does_not_have_is_told_by_its_answer(served):
    pytest.importorskip("transformers")
    handler, asked = served
    with pytest.raises(ModelError, match="the hub has no model 'someone/typo'; check the name, and log in"):
        load_model("someone/typo")
    with pytest.raises(ValueError, match="the hub has no dataset 'someone/typo'"):
        open_data("someone/typo")
    assert asked == ["/api/models/someone/typo", "/api/datasets/someone/typo"]
    handler.status, handler.said = 500, "Broken"
    assert hub_answers("someone/typo", "model")
