"""``upright serve`` under load on loopback: latency, requests a second at 1, 4 and 16 clients, a hostile mix.

    python -m benchmarks.serve

The server is a process of its own, as the command starts it: EfficientNet-Lite0, ``photo-c4``, one pass.
Clients post a photo of 512 pixels turned by quarters, each as soon as its last answer has come, and ask for
the adapted answer alone. Beside that stands what one answer costs without any server: decoding, pose and
one pass, in one thread, from which follows how many answers a second the workers could give at best. Clients
and server share the cores.

In the hostile mix every second client sends what is refused: bombs, garbage, bodies that are too large, too
slow or broken off, heads that never end. What counts is that honest clients get their answers, that no
hostile one does, and that memory does not grow.
"""

from __future__ import annotations

import http.client
import io
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

import upright
from benchmarks.record import median_ms, parser, rounded, start, write
from upright.integrations import LoadedModel, SquarePreprocess, load_model

PATH = "/api/predict?bare=false&degrees={}"
BOMB = 2**15


def tiny() -> LoadedModel:
    """A model that costs nothing, for the smoke run."""
    torch.manual_seed(0)
    return LoadedModel(nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 5)), SquarePreprocess(32))


def photo() -> bytes:
    from upright.serve.examples import examples

    return examples()[0].file()[0]


@contextmanager
def serving(model: str, workers: int) -> Iterator[tuple[str, int, int]]:
    """Run the command; yields host, port and the number of the process."""
    command = [sys.executable, "-m", "upright.cli", "serve", "--model", model, "--port", "0"]
    command += ["--workers", str(workers), "--max-seconds", "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {line}")
        host, _, port = line.split("http://")[1].split()[0].partition(":")
        yield host, int(port), process.pid
        process.send_signal(signal.SIGINT)
        if process.wait(40) != 0:
            raise SystemExit(f"the server ended with {process.returncode}")
    finally:
        process.kill()


def memory_mb(process: int, name: str = "VmRSS") -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024


class Load:
    """Clients that ask for some seconds; what they met is counted."""

    def __init__(self, host: str, port: int, body: bytes) -> None:
        self.host, self.port, self.body = host, port, body
        self.end, self.lock = 0.0, threading.Lock()
        self.seconds: list[float] = []
        self.codes: Counter[str] = Counter()
        self.hostile: Counter[str] = Counter()

    def run(self, clients: int, seconds: float, hostile: int = 0) -> dict[str, Any]:
        self.end, began = time.perf_counter() + seconds, time.perf_counter()
        jobs: list[Callable[[int], None]] = [self.honest] * (clients - hostile) + [self.attack] * hostile
        threads = [threading.Thread(target=job, args=(i,)) for i, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.summary(time.perf_counter() - began)

    def honest(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        draw = random.Random(number)
        while time.perf_counter() < self.end:
            began = time.perf_counter()
            try:
                connection.request("POST", PATH.format(90 * draw.randrange(4)), self.body)
                answer = connection.getresponse()
                answer.read()
                code = str(answer.status)
                pause = int(answer.headers.get("Retry-After", 0))
            except (OSError, http.client.HTTPException) as error:
                code, pause = type(error).__name__, 0
                connection.close()
            with self.lock:
                self.codes[code] += 1
                if code == "200":
                    self.seconds.append(time.perf_counter() - began)
            time.sleep(min(pause, max(0.0, self.end - time.perf_counter())))
        connection.close()

    def attack(self, number: int) -> None:
        draw = random.Random(number)
        kinds = list(ATTACKS)
        while time.perf_counter() < self.end:
            kind = draw.choice(kinds)
            got = ATTACKS[kind](self)
            with self.lock:
                self.hostile[f"{kind}: {got}"] += 1

    def send(self, *parts: bytes, pause: float = 0.0, listen: bool = True) -> str:
        """Send parts on a connection of its own; return the status, or how it ended."""
        try:
            with socket.create_connection((self.host, self.port), timeout=20) as made:
                for part in parts:
                    made.sendall(part)
                    time.sleep(pause)
                if not listen:
                    return "left"
                first = made.recv(64)
                return first.split()[1].decode() if first else "closed"
        except OSError as error:
            return type(error).__name__

    def summary(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [float("nan")]

        def quantile(share: float) -> float:
            return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return {
            "requests_per_second": len(self.seconds) / seconds,
            "p50_ms": 1e3 * statistics.median(ordered),
            "p95_ms": quantile(0.95),
            "p99_ms": quantile(0.99),
            "answers": dict(sorted(self.codes.items())),
            **({"hostile": dict(sorted(self.hostile.items()))} if self.hostile else {}),
        }


def head(length: int) -> bytes:
    return f"POST {PATH.format(0)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()


def bomb() -> bytes:
    """A PNG of 32768×32768 pixels in three megabytes."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", BOMB, BOMB, 8, 2, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(b"\0" * BOMB * 3 * 1024, 9)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


_BOMB = bomb()
_NOISE = random.Random(0).randbytes(50_000)
_LARGE = b"\0" * (12 * 2**20)
ATTACKS: dict[str, Callable[[Load], str]] = {
    "bomb": lambda load: load.send(head(len(_BOMB)), _BOMB),
    "noise": lambda load: load.send(head(len(_NOISE)), _NOISE),
    "too large": lambda load: load.send(head(len(_LARGE)), _LARGE),
    "cut short": lambda load: load.send(head(len(load.body) // 2), load.body[: len(load.body) // 2]),
    "broken off": lambda load: load.send(head(len(load.body)), load.body[:1000], listen=False),
    "asked and left": lambda load: load.send(head(len(load.body)), load.body, listen=False),
    "slow": lambda load: load.send(head(1000), *[b"x"] * 10, pause=0.1, listen=False),
    "endless head": lambda load: load.send(
        b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 10, pause=0.1, listen=False
    ),
    "no HTTP": lambda load: load.send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n"),
}


def alone(model: str, body: bytes, repeats: int) -> dict[str, float]:
    """What one answer costs without a server, in one thread, and what of it is the model."""
    from upright.serve import Ask, Service

    torch.set_num_threads(1)
    loaded = load_model(model)
    robust = upright.adapt(loaded.model, "C4").eval()
    service = Service(robust, loaded)
    x = loaded.preprocess(Image.open(io.BytesIO(body)).convert("RGB"))[None]
    with torch.inference_mode():
        return {
            "answer_ms": median_ms(lambda: service.answer(body, Ask(bare=False)), repeats=repeats),
            "model_ms": median_ms(lambda: robust.model(x), repeats=repeats),
            "adapted_ms": median_ms(lambda: robust(x), repeats=repeats),
        }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--seconds", type=float, default=15.0, help="of each load")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    chosen = options.parse_args()
    start(chosen)
    model = "benchmarks.serve:tiny" if chosen.smoke else "efficientnet-lite0"
    seconds, body = 0.7 if chosen.smoke else chosen.seconds, photo()
    figures: dict[str, Any] = {"alone": alone(model, body, 3 if chosen.smoke else 30)}
    best = 1e3 * chosen.workers / figures["alone"]["answer_ms"]
    with serving(model, chosen.workers) as (host, port, process):
        Load(host, port, body).run(2, min(seconds, 2.0))  # warm
        before = memory_mb(process)
        for clients in (1, 4, 16):
            row = Load(host, port, body).run(clients, seconds)
            row["share_of_best"] = row["requests_per_second"] / min(best, best / chosen.workers * clients)
            figures[f"{clients} clients"] = row
        figures["hostile"] = Load(host, port, body).run(16, 2 * seconds, hostile=8)
        figures["memory_mb"] = {
            "before": before,
            "after": memory_mb(process),
            "most": memory_mb(process, "VmHWM"),
        }
    failed = [
        k for k, row in figures.items() for code in row.get("answers", {}) if code not in ("200", "503")
    ]
    answered = [k for k in figures["hostile"]["hostile"] if k.endswith(": 200")]
    if failed or answered:
        raise SystemExit(f"errors in {failed}, answers to {answered}: {figures}")
    write(
        "serve", rounded(figures), chosen, workers=chosen.workers, seconds=seconds, input=f"{len(body)} bytes"
    )


if __name__ == "__main__":
    main()
