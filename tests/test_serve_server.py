"""A server on loopback answers many at once, turns away whom it cannot serve, waits for nobody, ends well."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("httpx", reason="the clients of these tests need httpx")

import httpx

from cli_work import lines, work_folder  # noqa: F401
from serve_toys import Corners, Gate, encoded, photo, running, service, until
from upright.cli import main
from upright.cli.serve import task_of
from upright.serve import Ask, Limits, listen
from upright.serve.defaults import prepare_digit


def post(address, data, **query):
    return httpx.post(f"{address}/api/predict", content=data, params=query, timeout=20)


def raw(address, data, seconds=10.0):
    """Send bytes on a connection of its own; return what comes back until it is closed, and when that was."""
    began = time.monotonic()
    with connection(address) as made:
        made.settimeout(seconds)
        made.sendall(data)
        parts = []
        try:
            while part := made.recv(65536):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
    return b"".join(parts), time.monotonic() - began


def connection(address):
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def trickle(made, data):
    for byte in data:
        made.sendall(bytes([byte]))
        time.sleep(0.03)


HEAD = "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"


# ---- many at once


def test_answers_to_many_at_once_are_each_their_own():
    made = service(limits=Limits(workers=3, queue=100))
    asked = [(seed, degrees) for seed in range(6) for degrees in (0, 30, 90, 180, 200, 270)]
    expected = {key: made.answer(encoded(photo(seed=key[0])), Ask(degrees=key[1])) for key in asked}
    with running(made) as (address, _), ThreadPoolExecutor(12) as clients:
        answers = clients.map(
            lambda key: post(address, encoded(photo(seed=key[0])), degrees=key[1]).json(), asked
        )
        for key, answer in zip(asked, answers, strict=True):
            assert answer["adapted"]["top"] == [guess.model_dump() for guess in expected[key].adapted.top]
            assert answer["bare"]["top"] == [guess.model_dump() for guess in expected[key].bare.top]
            assert answer["pose"] == expected[key].pose.model_dump()


def test_no_more_than_the_workers_compute_and_the_rest_is_turned_away():
    model = Gate()
    with running(service(model, limits=Limits(workers=2, queue=2))) as (address, _):
        with ThreadPoolExecutor(10) as clients:
            asked = [clients.submit(post, address, encoded(photo()), bare=False) for _ in range(10)]
            until(lambda: sum(one.done() for one in asked) == 6)
            refused = [one.result() for one in asked if one.done()]
            model.opened.set()
            codes = sorted(one.result().status_code for one in asked)
        assert post(address, encoded(photo()), bare=False).status_code == 200  # places are free again
    assert codes == [200] * 4 + [503] * 6
    assert model.most == 2
    for answer in refused:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["error"]["code"] == "busy"


def test_the_loop_stays_free_while_models_run():
    model = Gate()
    with running(service(model, limits=Limits(workers=1))) as (address, _), ThreadPoolExecutor(1) as clients:
        asked = clients.submit(post, address, encoded(photo()), bare=False)
        until(lambda: model.now == 1)
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert not asked.done()
        model.opened.set()
        assert asked.result().status_code == 200


def test_what_takes_too_long_is_given_up():
    model = Gate()
    with running(service(model, limits=Limits(workers=1, queue=5, max_seconds=1.0))) as (address, server):
        with ThreadPoolExecutor(2) as clients:
            answers = list(clients.map(lambda _: post(address, encoded(photo()), bare=False), range(2)))
        assert sorted(answer.status_code for answer in answers) == [503, 504]
        pool = server.config.app.state.pool
        assert pool.held == 1  # it still runs, and so holds its place
        model.opened.set()
        until(lambda: pool.held == 0)
    assert model.runs == 1  # the one that waited was never begun


def test_what_nobody_waits_for_is_not_begun():
    model = Gate()
    data = encoded(photo())
    with running(service(model, limits=Limits(workers=1, queue=5))) as (address, server):
        pool = server.config.app.state.pool
        with ThreadPoolExecutor(1) as clients, ExitStack() as open_ones:
            asked = clients.submit(post, address, data, bare=False)
            until(lambda: model.now == 1)
            for _ in range(3):
                open_ones.enter_context(connection(address)).sendall(HEAD.format(len(data)).encode() + data)
            until(lambda: pool.held == 4)
            open_ones.close()
            until(lambda: pool.held == 1)
            model.opened.set()
            assert asked.result().status_code == 200
    assert model.runs == 1


# ---- slow clients


def test_slow_heads_are_cut_off():
    with running(service(limits=Limits(header_seconds=0.3))) as (address, server):
        for start in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "):
            answer, seconds = raw(address, start)
            assert answer == b""
            assert 0.2 < seconds < 8
        with connection(address) as trickling:  # a byte now and then does not begin the wait anew
            began = time.monotonic()
            with pytest.raises((ConnectionError, BrokenPipeError)):
                trickle(trickling, b"GET / HTTP/1.1\r\n" + b"X-Padding: padding\r\n" * 20)
            assert time.monotonic() - began < 8
        until(lambda: not server.server_state.connections)


def test_idle_connections_may_ask_again():
    with running(service(limits=Limits(header_seconds=0.2))) as (address, _), httpx.Client() as client:
        for _ in range(2):
            assert client.get(f"{address}/healthz").status_code == 200
            time.sleep(0.4)


def test_slow_bodies_are_cut_off():
    with running(service(limits=Limits(read_seconds=1.0, uploads=1))) as (address, _):
        answer, seconds = raw(address, HEAD.format(1000).encode() + b"\x89PNG")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"slow_body"' in answer
        assert 0.9 < seconds < 8
        assert post(address, encoded(photo())).status_code == 200  # its place is free again


def test_uploads_are_counted():
    with running(service(limits=Limits(uploads=1))) as (address, _), connection(address) as slow:
        slow.sendall(HEAD.format(1000).encode() + b"\x89PNG")
        answers = []
        until(lambda: answers.append(post(address, encoded(photo()))) or answers[-1].status_code == 503)
        assert answers[-1].headers["retry-after"] == "1"


def test_answers_that_nobody_reads_are_given_up():
    large = photo(512, 512).tobytes() * 12  # larger than the buffers of a connection
    with running(service(limits=Limits(write_seconds=0.3))) as (address, server):
        app = server.config.app

        @app.get("/large")
        async def endless():
            from starlette.responses import Response

            return Response(large)

        with connection(address) as deaf:
            deaf.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until(lambda: len(server.server_state.connections) == 1)
            until(lambda: not server.server_state.connections)


def test_large_bodies_see_the_answer():
    limits = Limits(max_bytes=100_000)
    body = b"\0" * 900_000
    with running(service(limits=limits)) as (address, _):
        answer, _ = raw(address, HEAD.format(len(body)).encode() + body)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        chunks = b"".join(b"C350\r\n" + b"\0" * 50_000 + b"\r\n" for _ in range(9)) + b"0\r\n\r\n"
        head = HEAD.replace("Content-Length: {}", "Transfer-Encoding: chunked").encode()
        assert raw(address, head + chunks)[0].startswith(b"HTTP/1.1 413 ")


def test_endless_bodies_are_not_collected():
    with running(service(limits=Limits(max_bytes=100_000))) as (address, _), connection(address) as endless:
        endless.sendall(HEAD.replace("Content-Length: {}", "Transfer-Encoding: chunked").encode())
        assert accepted(endless, b"C350\r\n" + b"\0" * 50_000 + b"\r\n", 1200) < 600  # most of it in buffers


def accepted(made, chunk, most):
    """Send a chunk again and again; return how often the other side let that happen."""
    for count in range(most):
        try:
            made.sendall(chunk)
        except ConnectionError:
            return count
    return most


def test_heads_that_are_none():
    with running(service()) as (address, _):
        for head in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 99_999):
            answer, _ = raw(address, head + b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")
        twice = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
        assert raw(address, twice)[0].startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"{address}/healthz").status_code == 200


# ---- the command


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}


def start(*arguments):
    command = [
        sys.executable,
        "-m",
        "upright.cli",
        "serve",
        "saved",
        "--trust-code",
        "--port",
        "0",
        *arguments,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT, **pipes)


def test_the_command_serves_and_ends_in_order(work):
    process = start("--workers", "1")
    try:
        first = process.stdout.readline()
        assert first.startswith("my_code:make, adapted to C4, is at http://127.0.0.1:"), process.stderr.read()
        address = first.split()[6]
        answer = post(address, encoded(photo(width=40, height=30)), degrees=90).json()
        assert answer["adapted"]["top"][0]["label"] == "sky"
        assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 421
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert err == ""
    assert out.splitlines()[-1] == "upright: stopped"
    assert process.returncode == 0


def test_answers_that_are_due_are_given_at_the_end():
    model = Gate()
    with running(service(model, limits=Limits(workers=1))) as (address, server):
        with ThreadPoolExecutor(1) as clients:
            due = clients.submit(post, address, encoded(photo()), bare=False)
            until(lambda: model.now == 1)
            server.should_exit = True
            until(lambda: not accepts(address))
            model.opened.set()
            assert due.result().status_code == 200


def accepts(address):
    try:
        connection(address).close()
    except OSError:
        return False
    return True


def test_mistakes_are_one_line(work, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        mistakes = {
            (
                "--port",
                port,
            ): f"cannot listen at 127.0.0.1:{port}: Address already in use; give another --port",
            ("--port", "99999"): "--port must lie in 0…65535",
            ("--host", "no.such.host.invalid"): "there is no host 'no.such.host.invalid'",
            ("--workers", "0"): "must be at least 1, got 0",
            ("--max-seconds", "nan"): "--max-seconds must be a positive number of seconds",
            ("--queue", "-1"): "--queue must be an integer, at least 0",
            ("--task", "text"): "--task text is not drawn; give one of classification",
            ("--task", "poetry"): "--task poetry is unknown",
            ("--threshold", "2"): "--threshold must lie in 0…1",
            ("--task", "segmentation", "--trust-code"): "cannot be shown as segmentation",
            (): "give --trust-code to run it, or --model",
        }
        for flags, message in mistakes.items():
            port_flags = [] if "--port" in flags else ["--port", "0"]
            assert main(["serve", "saved", *port_flags, *flags]) == 2, flags
            _, err = lines(capsys)
            assert len(err) == 1, err
            assert message in err[0]


def test_tasks_are_told_by_outputs():
    assert task_of(None) == task_of("logits") == "classification"
    assert task_of("mask") == "segmentation"
    assert task_of({"boxes": "boxes", "labels": "invariant"}) == "detection"
    assert task_of({"boxes": "boxes", "masks": "mask"}) == "instances"
    assert task_of({"boxes": "boxes", "keypoints": "points"}) == "keypoints"


def test_digits_where_no_network_for_photos_is_installed(monkeypatch):
    pytest.importorskip("sklearn", reason="digits come from scikit-learn")
    from upright.serve import Service, defaults

    robust, loaded, pictures = defaults.digits(epochs=1)
    made = Service(robust, loaded, pictures=pictures)
    assert made.info().classes == 10
    data, media = pictures[0].file()
    assert media == "image/jpeg"
    answer = made.answer(data, Ask(degrees=90))
    assert len(answer.adapted.top) == 5
    json.loads(answer.model_dump_json())


def test_digits_are_bright_on_dark():
    dark = prepare_digit(photo().convert("L").point(lambda v: 255 if v > 250 else 0).convert("RGB"))
    assert dark.shape == (1, 16, 16)
    from PIL import Image

    page = Image.new("RGB", (40, 30), "white")
    page.paste((0, 0, 0), (18, 10, 22, 20))
    x = prepare_digit(page)
    assert float(x.median()) == 0
    assert float(x.max()) == 1
    assert torch.isfinite(prepare_digit(Image.new("RGB", (9, 9)))).all()


def test_bare_corners_are_not_equivariant():
    """What the tests tell apart is really there."""
    x = torch.rand(1, 3, 16, 16)
    assert not torch.allclose(Corners()(x), Corners()(x.flip(2)))
