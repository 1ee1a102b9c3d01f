// Server-sent events over fetch.
//
// EventSource would be shorter, but it hides comments (so that silence and a quiet catalogue look the same), can't
// send a token, and doesn't say why it was refused. A stream here reconnects by itself with backoff and jitter, goes
// on behind the last id it saw, and gives up a connection on which nothing has come for SILENCE.

const SILENCE = 20_000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
// A server that never ends an event must not fill the memory. A snapshot of 100,000 instances has some 50 MB.
const LONGEST_EVENT = 128 * 1024 * 1024;

export class Stream {
  #handlers;
  #abort = null;
  #wake = null;
  lastId = "";

  // url() and headers() are asked at each connection. Handlers: open(response), event(type, data, id), alive(), lost(why, status).
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

  // Ends a pause between two attempts.
  hurry() {
    this.#wake?.();
  }

  async #loop(signal) {
    let pause = FIRST_PAUSE;
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
      if (Date.now() - began > LONGEST_PAUSE) pause = FIRST_PAUSE;
      await this.#sleep(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
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
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        silent = true;
        attempt.abort();
      }, SILENCE);
    };
    heard();
    try {
      const headers = { Accept: "text/event-stream", ...this.#handlers.headers?.() };
      if (this.lastId) headers["Last-Event-ID"] = this.lastId;
      const response = await fetch(this.#handlers.url(), { headers, signal: attempt.signal, cache: "no-store" });
      if (!response.ok) throw await refusal(response);
      if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
        throw new Error("the answer is no event stream");
      }
      heard();
      this.#handlers.open?.(response);
      const parser = new Parser((type, data, id) => {
        if (id !== null) this.lastId = id;
        this.#handlers.event(type, data, id);
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || stopped.aborted) return;
        heard();
        this.#handlers.alive?.();
        parser.push(value);
      }
    } catch (error) {
      throw silent ? new Error(`silent for ${SILENCE / 1000} s`) : error;
    } finally {
      clearTimeout(timer);
      stopped.removeEventListener("abort", stop);
      attempt.abort();
    }
  }
}

// A problem document's detail, or the bare status.
async function refusal(response) {
  let detail = "";
  try {
    detail = (await response.json()).detail;
  } catch {
    // Not a problem document: the status says enough.
  }
  const error = new Error(detail || `the registry answered ${response.status}`);
  error.status = response.status;
  return error;
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, without `retry`.
export class Parser {
  #emit;
  // The line that is coming in. A long one comes in thousands of pieces, so it is put together once, at its end.
  #pieces = [];
  #length = 0;
  // A CR came last, and perhaps its LF comes next.
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
    if (this.#length + this.#size > LONGEST_EVENT) throw new Error("an event is too long");
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
