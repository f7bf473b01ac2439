// What comes from the service: frames over a WebSocket, the rest by asking.

import { Frame } from "./frames.js";

const RETRY_MS = [300, 1000, 3000, 5000];
const ANSWERS_MS = 10000; // or a service that stands still is waited for without end

export class Connection {
  constructor({ onFrame, onState }) {
    this.onFrame = onFrame;
    this.onState = onState;
    this.wanted = null;
    this.failures = 0;
    this.received = 0;
    this.unanswered = 0;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.failures = 0;
      this.unanswered = 0;
      this.onState(true);
      this.ask();
    });
    socket.addEventListener("message", (event) => {
      this.received += 1;
      this.unanswered += 1;
      this.onFrame(new Frame(event.data));
    });
    socket.addEventListener("close", () => {
      this.onState(false);
      const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      setTimeout(() => this.open(), wait);
    });
    this.socket = socket;
  }

  watch(universe, estimator) {
    this.wanted = [universe, estimator];
    this.done();
    this.ask();
  }

  ask() {
    if (this.wanted) this.send({ watch: this.wanted });
  }

  // Another frame is sent once one that was sent is done with.
  done() {
    if (this.unanswered) this.send({ drawn: this.unanswered });
    this.unanswered = 0;
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}

async function ask(parts, query = "") {
  const path = parts.map(encodeURIComponent).join("/");
  const response = await fetch(`/api/${path}${query}`, { signal: AbortSignal.timeout(ANSWERS_MS) });
  if (response.status === 401) location.reload(); // the service began anew and asks for the token
  return response.status === 200 ? response.json() : null;
}

export const get = (...parts) => ask(parts);
export const getEvents = (universe, after) => ask(["events", universe], `?after=${after}`);
export const getMoved = (universe, estimator, since) => ask(["moved", universe, estimator], `?since=${since}`);
export const getHistory = (universe, estimator, a, b) => ask(["history", universe, estimator], `?${new URLSearchParams({ pair: `${a},${b}` })}`);
