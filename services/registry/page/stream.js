// Server-sent events over fetch.
//
// EventSource hides comments, so that a dead connection and a quiet catalogue look the same; it can't send a token, and
// does not report why it was refused. This stream reconnects with backoff and jitter, resumes after the last id, and
// gives up a connection on which nothing has come for SILENCE_TIMEOUT.

const SILENCE_TIMEOUT = 20_000;
const MIN_PAUSE = 500;
const MAX_PAUSE = 10_000;
// Bounds the memory that an endless event can take. A snapshot of 100,000 instances has about 50 MB.
const MAX_EVENT = 128 * 1024 * 1024;

export class Stream {
  #handlers;
  #abort = null;
  #wake = null;
  lastId = "";

  // Handlers: url() and headers(), called for each connection; open(response); received(), for each piece of data, even
  // a comment; event(type, data, id); lost(why, status).
  constructor(handlers) {
    this.#handlers = handlers;
  }

  get running() {
    return this.#abort !== null;
  }

  start() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#loop(this.#abort.signal);
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#wake?.();
  }

  restart() {
    this.stop();
    this.start();
  }

  // Ends the pause before the next attempt.
  retryNow() {
    this.#wake?.();
  }

  async #loop(signal) {
    let pause = MIN_PAUSE;
    while (!signal.aborted) {
      const began = Date.now();
      try {
        await this.#read(signal);
        if (signal.aborted) return;
        this.#handlers.lost("the stream ended", 200);
      } catch (error) {
        if (signal.aborted) return;
        this.#handlers.lost(error.message, error.status ?? 0);
      }
      if (Date.now() - began > MAX_PAUSE) pause = MIN_PAUSE;
      await this.#sleep(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, MAX_PAUSE);
    }
  }

  #sleep(millis) {
    return new Promise((done) => {
      const timer = setTimeout(done, millis);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  async #read(stopped) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    stopped.addEventListener("abort", stop);
    let silent = false;
    let timer = 0;
    const restartTimer = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        silent = true;
        attempt.abort();
      }, SILENCE_TIMEOUT);
    };
    restartTimer();
    try {
      const headers = { Accept: "text/event-stream", ...this.#handlers.headers?.() };
      if (this.lastId) headers["Last-Event-ID"] = this.lastId;
      const response = await fetch(this.#handlers.url(), { headers, signal: attempt.signal, cache: "no-store" });
      if (!response.ok) throw await refusal(response);
      if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
        throw new Error("the response is not an event stream");
      }
      restartTimer();
      this.#handlers.open?.(response);
      const parser = new Parser((type, data, id) => {
        if (id !== null) this.lastId = id;
        this.#handlers.event(type, data, id);
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || stopped.aborted) return;
        restartTimer();
        this.#handlers.received?.();
        parser.push(value);
      }
    } catch (error) {
      throw silent ? new Error(`silent for ${SILENCE_TIMEOUT / 1000} s`) : error;
    } finally {
      clearTimeout(timer);
      stopped.removeEventListener("abort", stop);
      attempt.abort();
    }
  }
}

// An error with the detail of the problem document, or else the status.
async function refusal(response) {
  let detail = "";
  try {
    detail = (await response.json()).detail;
  } catch {
    // Not a problem document.
  }
  const error = new Error(detail || `the registry answered ${response.status}`);
  error.status = response.status;
  return error;
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, without `retry`.
export class Parser {
  #emit;
  // The current line. A long one comes in thousands of pieces, so it is joined once, at its end.
  #pieces = [];
  #length = 0;
  // The last character was a CR, which an LF may follow.
  #cr = false;
  #type = "";
  #data = [];
  #size = 0;
  #id = null;

  constructor(emit) {
    this.#emit = emit;
  }

  push(text) {
    const whole = this.#cr ? `\r${text}` : text;
    this.#cr = whole.endsWith("\r");
    const lines = (this.#cr ? whole.slice(0, -1) : whole).split(/\r\n|\n|\r/);
    const rest = lines.pop();
    for (const line of lines) {
      this.#line(this.#pieces.join("") + line);
      this.#pieces = [];
      this.#length = 0;
    }
    this.#pieces.push(rest);
    this.#length += rest.length;
    if (this.#length + this.#size > MAX_EVENT) throw new Error("an event is too long");
  }

  #line(line) {
    if (line === "") {
      if (this.#data.length > 0) this.#emit(this.#type || "message", this.#data.join("\n"), this.#id);
      this.#type = "";
      this.#data = [];
      this.#size = 0;
      this.#id = null;
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "data") {
      this.#data.push(value);
      this.#size += value.length;
    }
  }
}
