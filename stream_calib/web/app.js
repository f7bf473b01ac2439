// The live view: what is chosen, and what is done with each frame.

import { badges, fillBadges } from "./badges.js";
import { drawLegend, isDark } from "./colours.js";
import { Connection, get, getEvents, getMoved } from "./connection.js";
import { nameOf, save, toCsv, toPicture } from "./downloads.js";
import { fillEvents, timeText } from "./events.js";
import { msOf, sameSymbols, signed } from "./frames.js";
import { HeatMap } from "./heatmap.js";
import { Ordering } from "./ordering.js";
import { PairPanel, RegimePanel } from "./panels.js";
import { fillMoved, fillPairs, fillRow, strongestAndWeakest } from "./tables.js";
import { startTheme } from "./theme.js";

const POLL_MS = 2000;
const BADGES_MS = 1000;
const TABLES_MS = 1000;
const REORDER_MS = 3000;
const EVENTS_SHOWN = 100;
const NAMES = { ewma: "EWMA", dcc: "DCC", difference: "DCC \u2212 EWMA" };
const LIMITS = { difference: 0.5 }; // ends of the scale; elsewhere 1

const part = (id) => document.getElementById(id);

class App {
  constructor() {
    this.frame = null; // what is shown
    this.waiting = null; // what came, and is not shown yet
    this.paused = false;
    this.universe = null;
    this.estimator = null;
    this.pair = null; // symbols of the chosen pair
    this.drawn = 0;
    this.clusteredMs = -Infinity;
    this.tabledMs = -Infinity;
    this.receivedMs = performance.now(); // when the service had something new
    this.standing = []; // universes that another worker owns
    this.refill = 0; // polls in which the past is fetched again
    this.known = [];
    this.knownMs = 0;
    this.stepMs = 0;
    this.passedOver = false;
    this.progress = null;
    this.reasons = [];
    this.connected = false;
    this.answers = true; // to what is asked besides
    this.events = [];
    this.ordering = new Ordering();
    this.heat = new HeatMap(part("heat"), {
      onChoose: (a, b) => this.choose(a, b),
      onHover: (cell, x, y) => this.tip(cell, x, y),
    });
    this.pairPanel = new PairPanel(part("selected"), part("announced"), part("pair-chart"));
    this.regimePanel = new RegimePanel(part("regime-text"), part("regime-chart"), part("drift-chart"));
    startTheme(part("theme"), () => this.recolour());
    this.listen();
    this.connection = new Connection({
      onFrame: (frame) => this.receive(frame),
      onState: (connected) => {
        this.connected = connected;
        this.badge();
      },
    });
    this.poll();
    setInterval(() => this.badge(), BADGES_MS); // silence makes no event
  }

  listen() {
    part("universe").addEventListener("change", (event) => this.watch(event.target.value, null));
    part("estimators").addEventListener("change", (event) => this.watch(this.universe, event.target.value));
    part("pause").addEventListener("click", () => this.pause(!this.paused));
    part("reorder").addEventListener("click", () => {
      this.ordering = new Ordering();
      this.clusteredMs = -Infinity;
      if (this.frame) this.draw(this.frame);
    });
    part("order").addEventListener("change", () => {
      part("reorder").disabled = this.isByName();
      this.clusteredMs = -Infinity;
      if (this.frame) this.draw(this.frame);
    });
    part("find").addEventListener("change", (event) => this.find(event.target.value));
    for (const id of ["row", "column"]) part(id).addEventListener("change", () => this.choose(part("row").value, part("column").value));
    part("csv").addEventListener("click", (event) => this.download(event, async (frame) => {
      save(new Blob([toCsv(frame, this.heat.order)], { type: "text/csv" }), nameOf(frame, "csv"));
    }));
    part("png").addEventListener("click", (event) => this.download(event, async (frame) => {
      save(await toPicture(frame, part("heat")), nameOf(frame, "png"));
    }));
    document.addEventListener("click", (event) => {
      if (!part("downloads").contains(event.target)) part("downloads").open = false;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") part("downloads").open = false;
    });
  }

  download(event, make) {
    event.preventDefault();
    if (this.frame) make(this.frame);
  }

  async poll() {
    try {
      await this.refresh();
      if (this.universe) await this.pollEvents();
      if (!this.paused) await this.pollMoved();
      await this.fillGaps();
      this.answers = true;
    } catch {
      this.answers = false;
      this.progress = null;
      this.reasons = []; // the service is away, or stands still
    }
    this.badge();
    setTimeout(() => this.poll(), POLL_MS);
  }

  take(universes) {
    const names = universes.map((one) => one.name);
    const select = part("universe");
    if (this.universe !== null && !names.includes(this.universe)) { // it was renamed
      this.universe = this.estimator = null;
      this.clear();
    }
    if (!sameSymbols(names, [...select.options].map((option) => option.value))) {
      select.replaceChildren(...names.map((name) => new Option(name, name)));
      select.value = this.universe ?? names[0];
    }
    const own = universes.find((one) => one.name === (this.universe ?? names[0]));
    if (!own) return;
    this.progress = own.progress;
    this.known = universes;
    this.knownMs = performance.now();
    this.hear();
    const estimators = Object.keys(NAMES).filter((name) => name in own.estimators);
    estimators.push(...Object.keys(own.estimators).filter((name) => !(name in NAMES)));
    this.offer(estimators);
    if (this.universe === null || this.estimator === null) {
      if (estimators.length) this.watch(own.name, estimators[0]);
      else this.universe = own.name;
    }
  }

  own() {
    return this.known.find((one) => one.name === this.universe)?.estimators[this.estimator];
  }

  // What came before the page was opened is as old as the service says.
  hear() {
    const own = this.own();
    if (own) this.receivedMs = Math.min(this.receivedMs, this.knownMs - 1000 * own.shown_for_s);
  }

  offer(estimators) {
    const set = part("estimators");
    const there = [...set.querySelectorAll("input")].map((input) => input.value);
    if (sameSymbols(there, estimators)) return;
    set.querySelectorAll("label").forEach((label) => label.remove());
    for (const name of estimators) {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "estimator", value: name, checked: name === this.estimator });
      const text = document.createElement("span");
      text.textContent = NAMES[name] ?? name;
      label.append(input, text);
      set.append(label);
    }
  }

  watch(universe, estimator) {
    const moved = universe !== this.universe;
    this.universe = universe;
    this.estimator = estimator;
    part("universe").value = universe;
    if (moved) this.clear();
    if (estimator === null) {
      this.offer([]); // until it is known what this universe has
      this.later(this.refresh());
      return;
    }
    for (const input of part("estimators").querySelectorAll("input")) input.checked = input.value === estimator;
    this.pause(false);
    this.waiting = null;
    this.stepMs = 0;
    this.receivedMs = performance.now();
    this.hear();
    this.connection.watch(universe, estimator);
    this.later(this.regimePanel.start(universe, estimator));
    for (const suffix of ["npy", "json"]) {
      const path = `/api/matrix/${encodeURIComponent(universe)}/${encodeURIComponent(estimator)}`;
      part(suffix).href = suffix === "json" ? path : `${path}.${suffix}`;
    }
  }

  // What is shown is of another universe.
  clear() {
    this.pair = this.frame = null;
    part("shown").hidden = true;
    part("waiting").hidden = false;
    this.forgetEvents();
  }

  async refresh() {
    const universes = await get("universes");
    if (universes) this.take(universes);
    const state = await get("state");
    this.reasons = state?.reasons ?? [];
    const standing = state?.standing_by ?? [];
    if (this.standing.includes(this.universe) && !standing.includes(this.universe)) this.refill = 3;
    this.standing = standing;
    part("waiting").firstElementChild.textContent = this.standsBy() ? "This worker stands by: another one is the owner, and shows its matrices." : "Waiting for the first matrix.";
    part("reasons").replaceChildren(...this.reasons.map((reason) => Object.assign(document.createElement("li"), { textContent: reason })));
  }

  standsBy() {
    return this.standing.includes(this.universe);
  }

  // What could not be fetched is asked for again at the next poll.
  later(fetching) {
    fetching.catch(() => {
      this.passedOver = true;
    });
  }

  // Frames that were passed over on their way here are in the service's past.
  async fillGaps() {
    if (this.frame === null || !(this.passedOver || this.refill)) return;
    this.passedOver = false;
    this.refill = Math.max(0, this.refill - 1);
    await this.regimePanel.fetch(this.universe, this.estimator);
    if (this.pair) await this.pairPanel.fetch(this.frame, ...this.pair);
  }

  async pollEvents() {
    const known = this.events;
    const events = await getEvents(this.universe, known.at(-1)?.sequence ?? -1);
    if (!events?.length || known !== this.events) return; // or they were forgotten meanwhile
    this.events = known.concat(events).slice(-EVENTS_SHOWN);
    fillEvents(part("events"), this.events.slice().reverse());
    this.regimePanel.mark(this.events);
  }

  forgetEvents() {
    this.events = [];
    fillEvents(part("events"), []);
  }

  // What has moved most since the last model, or the last alarm, or as far back as is known.
  async pollMoved() {
    if (this.frame === null) return;
    const { key, head } = this.frame;
    const last = (...types) => this.events.findLast((event) => types.includes(event.type));
    const model = last("refit_installed", "refit_rolled_back");
    const mark = model ?? last("drift_alarm");
    const found = await getMoved(head.universe, head.estimator, mark?.time_ns ?? "0");
    if (!found || key !== this.frame.key) return;
    const then = msOf(found.then_ns);
    const marked = mark && then >= msOf(mark.time_ns); // else that is longer ago than what is kept
    fillMoved(part("moved"), found.then_ns === found.now_ns ? [] : found.moved, marked ? `the last ${model ? "model" : "alarm"}, ${timeText(then)}` : timeText(then));
  }

  isByName() {
    return part("order").value === "names";
  }

  // A symbol by its name or a part of it, with the one that moves most with it.
  find(text) {
    if (!this.frame || !text.trim()) return;
    const found = this.frame.like(text.trim().toLowerCase());
    if (found === undefined) {
      part("announced").textContent = `No symbol like ${text.trim()}`;
      part("find").setAttribute("aria-invalid", "true");
      return;
    }
    part("find").removeAttribute("aria-invalid");
    part("find").value = "";
    this.choose(found, this.frame.closestTo(found));
  }

  receive(frame) {
    const last = this.waiting ?? this.frame;
    if (last && last.key === frame.key && frame.timeMs !== last.timeMs) {
      if (frame.timeMs > last.timeMs) this.stepMs = frame.timeMs - last.timeMs;
      this.receivedMs = performance.now();
      if (frame.timeMs < last.timeMs || frame.head.sequence < last.head.sequence) this.forgetEvents(); // the input was begun anew
    }
    const isDue = this.waiting === null && !this.paused;
    this.waiting = frame;
    if (isDue) requestAnimationFrame(() => this.drawWaiting());
  }

  drawWaiting() {
    const frame = this.waiting;
    if (frame === null || this.paused) return; // unanswered, so that no more than one comes behind it
    this.waiting = null;
    this.connection.done();
    if (frame.n < 2) return; // no pair
    if (frame.head.universe === this.universe && frame.head.estimator === this.estimator) this.draw(frame);
  }

  pause(paused) {
    this.paused = paused;
    part("pause").setAttribute("aria-pressed", String(paused));
    part("pause").textContent = paused ? "Go on" : "Pause";
    if (!paused && this.waiting) requestAnimationFrame(() => this.drawWaiting());
    this.badge();
  }

  draw(frame) {
    const first = this.frame === null || this.frame.key !== frame.key;
    const others = this.frame === null || !sameSymbols(this.frame.symbols, frame.symbols);
    this.passedOver ||= !first && frame.head.sequence > this.frame.head.sequence + 1;
    this.frame = frame;
    part("shown").hidden = false;
    part("waiting").hidden = true;
    const now = performance.now();
    const anew = now - this.clusteredMs > REORDER_MS && !frame.isDifference;
    if (anew) this.clusteredMs = now;
    const { order, changed } = this.ordering.of(frame, { anew, byName: this.isByName() });
    if (others) this.listSymbols(frame);
    const limit = LIMITS[frame.head.estimator] ?? 1;
    this.heat.show(frame, order, changed || others, limit);
    if (first) {
      part("matrix-title").textContent = frame.isDifference ? "DCC minus EWMA, of the same time" : "Correlations";
      part("low").textContent = signed(-limit, limit < 1 ? 1 : 0);
      part("high").textContent = signed(limit, limit < 1 ? 1 : 0);
    }
    const there = this.pair !== null && this.pair.every((name) => frame.indexOf(name) >= 0);
    if (!there || first) {
      const { i, j } = strongestAndWeakest(frame).strong[0];
      this.choose(...(there ? this.pair : [frame.symbols[i], frame.symbols[j]]));
    } else {
      this.pairPanel.show(frame, ...this.pair);
      this.heat.choose(...this.pair.map((name) => order.indexOf(frame.indexOf(name))));
    }
    this.regimePanel.show(frame);
    this.badge();
    if (first || now - this.tabledMs > TABLES_MS) this.table(now);
    this.drawn += 1;
    Object.assign(part("heat").dataset, { drawn: this.drawn, sequence: frame.head.sequence, estimator: frame.head.estimator, received: this.connection.received });
    if (changed || others) part("heat").dataset.order = JSON.stringify(order.map((i) => frame.symbols[i]));
  }

  listSymbols(frame) {
    const names = frame.symbols.slice().sort();
    for (const id of ["row", "column", "names"]) part(id).replaceChildren(...names.map((name) => new Option(name, name)));
    this.nameChosen();
  }

  nameChosen() {
    if (this.pair) [part("row").value, part("column").value] = this.pair;
  }

  choose(a, b) {
    if (!this.frame) return;
    if (a !== b) this.pair = [a, b];
    this.nameChosen();
    if (a === b) return;
    const places = this.pair.map((name) => this.heat.order.indexOf(this.frame.indexOf(name)));
    this.heat.choose(...places);
    this.later(this.pairPanel.choose(this.frame, a, b));
    this.table(performance.now());
  }

  table(now) {
    this.tabledMs = now;
    const { strong, weak } = strongestAndWeakest(this.frame);
    fillPairs(part("strongest"), this.frame, strong);
    fillPairs(part("weakest"), this.frame, weak);
    if (this.pair) fillRow(part("whole-row"), this.frame, this.pair[0]);
  }

  tip(cell, x, y) {
    const box = part("tip");
    box.hidden = cell === null || cell[0] === cell[1];
    if (box.hidden) return;
    const [i, j] = cell;
    box.textContent = `${this.frame.symbols[i]} ~ ${this.frame.symbols[j]} ${signed(this.frame.at(i, j))}`;
    const room = part("stage").clientWidth - box.offsetWidth;
    box.style.left = `${Math.max(0, Math.min(x + 12, room))}px`;
    box.style.top = `${Math.max(0, y - 32)}px`;
  }

  badge() {
    const silentS = (performance.now() - this.receivedMs) / 1000;
    fillBadges(part("badges"), badges({ frame: this.frame, connected: this.connected && this.answers, paused: this.paused, progress: this.progress, reasons: this.reasons, standsBy: this.standsBy(), stepMs: this.stepMs, silentS, periodS: this.own()?.period_s ?? 0 }));
  }

  recolour() {
    drawLegend(part("scale"), isDark());
    this.heat.recolour();
    this.pairPanel?.lines.recolour();
    this.regimePanel?.recolour();
  }
}

new App();
