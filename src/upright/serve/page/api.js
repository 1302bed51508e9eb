// Talking to the server: one request at a time for a picture, the newest wish first, stale answers dropped.

export async function info() {
  return (await checked(await fetch("/api/info"))).json();
}

export async function example(name) {
  return (await checked(await fetch(`/api/examples/${encodeURIComponent(name)}`))).blob();
}

async function checked(response) {
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: keep the status */ }
  const error = new Error(message);
  error.status = response.status;
  error.retryAfter = Number(response.headers.get("Retry-After")) || 1;
  throw error;
}

async function predict(file, wish, signal) {
  const query = new URLSearchParams({
    degrees: wish.degrees, flip: wish.flip, square: true, canonical: true,
  });
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await fetch(`/api/predict?${query}`, {
        method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" },
      });
      return await (await checked(response)).json();
    } catch (error) {
      if (error.status !== 503 || attempt === 3) throw error;
      await new Promise((done) => setTimeout(done, 1000 * error.retryAfter));
      if (signal.aborted) throw new DOMException("dropped", "AbortError");
    }
  }
}

// Asks for what is wished; while an answer is on its way only the newest wish is kept.
export class Asker {
  constructor({ answered, failed, waiting }) {
    Object.assign(this, { answered, failed, waiting });
    this.file = null;
    this.flying = null;
    this.next = null;
    this.timer = 0;
  }

  // Take another picture: what is on its way is dropped.
  take(file) {
    this.file = file;
    this.flying?.abort();
    this.flying = null;
    this.next = null;
    clearTimeout(this.timer);
  }

  // Ask after a pause of some milliseconds, so that a moving slider does not ask for every degree.
  wish(wish, pause = 40) {
    this.next = wish;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), pause);
  }

  async send() {
    if (!this.file || !this.next || this.flying) return;
    const wish = this.next;
    const control = new AbortController();
    this.next = null;
    this.flying = control;
    this.waiting(true);
    try {
      const answer = await predict(this.file, wish, control.signal);
      if (this.flying === control) this.answered(wish, answer);
    } catch (error) {
      if (this.flying === control && error.name !== "AbortError") this.failed(error);
    } finally {
      if (this.flying === control) {
        this.flying = null;
        this.waiting(false);
        if (this.next) this.send();
      }
    }
  }

  // Ask and wait for this very answer; nothing else is asked meanwhile.
  async ask(wish, signal) {
    return predict(this.file, wish, signal);
  }
}
