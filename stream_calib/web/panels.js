// The pair that is chosen, and the regime: their words and lines.

import { Lines } from "./charts.js";
import { getHistory, get } from "./connection.js";
import { kindOf } from "./events.js";
import { bounds, msOf, signed } from "./frames.js";

const unit = (_, low, high) => {
  // wide enough to be read, and not beyond what a correlation can be
  if (low === null) return [-1, 1];
  const room = Math.max(0.05, 0.1 * (high - low));
  return [Math.max(Math.min(-1, low), low - room), Math.min(Math.max(1, high), high + room)];
};

export class PairPanel {
  constructor(text, announced, box) {
    this.text = text;
    this.announced = announced;
    this.asked = 0;
    const series = [{ label: "lower" }, { label: "upper" }, { label: "correlation", colour: "--accent" }];
    this.lines = new Lines(box, { series, band: [2, 1], range: unit });
  }

  // Somebody chose: its past is asked for, and it is read out.
  async choose(frame, a, b) {
    this.asked += 1; // what was asked for before is of no use any more
    this.lines.set([], [[], [], []]);
    this.write(frame, a, b);
    this.announced.textContent = this.text.textContent;
    await this.fetch(frame, a, b);
  }

  async fetch(frame, a, b) {
    const asked = this.asked;
    const past = await getHistory(frame.head.universe, frame.head.estimator, a, b);
    if (asked !== this.asked || !past) return;
    const rows = past.corr.map((corr, k) => [...bounds(corr, past.band[k], frame.isDifference), corr]);
    this.lines.merge(past.time_ns.map((text) => msOf(text) / 1000), [0, 1, 2].map((c) => rows.map((row) => row[c])));
  }

  show(frame, a, b) {
    const [i, j] = [frame.indexOf(a), frame.indexOf(b)];
    this.write(frame, a, b);
    if (i < 0 || j < 0) return;
    const corr = frame.at(i, j);
    this.lines.add(frame.timeMs / 1000, [...bounds(corr, frame.bandAt(i, j), frame.isDifference), corr]);
  }

  write(frame, a, b) {
    const [i, j] = [frame.indexOf(a), frame.indexOf(b)];
    if (i < 0 || j < 0) {
      this.text.textContent = `${a} ~ ${b}: not in this matrix`;
      return;
    }
    const corr = frame.at(i, j);
    const band = frame.bandAt(i, j);
    const [low, high] = bounds(corr, band, frame.isDifference);
    // both come from the same returns, so that their errors partly cancel
    const error = frame.isDifference ? "standard error at most" : "standard error";
    const known = low === null ? "" : `, ${error} ${band.toFixed(3)}, 95 % between ${signed(low)} and ${signed(high)}`;
    this.text.textContent = `${a} ~ ${b}: ${signed(corr)}${known}`;
  }
}

export class RegimePanel {
  constructor(text, regimeBox, driftBox) {
    this.text = text;
    this.key = "";
    const series = [{ label: "average correlation", colour: "--accent" }, { label: "first eigenvalue's share", colour: "--second" }];
    this.lines = new Lines(regimeBox, { series, range: unit, marks: true });
    const range = (_, _low, high) => [0, Math.max(1.2, 1.1 * (high ?? 0))];
    this.drift = new Lines(driftBox, { series: [{ label: "drift level", colour: "--accent" }], range, level: 1, marks: true, height: 150 });
  }

  async start(universe, estimator) {
    this.key = `${universe}|${estimator}`;
    this.lines.set([], [[], []]);
    this.drift.set([], [[]]);
    await this.fetch(universe, estimator);
  }

  async fetch(universe, estimator) {
    const past = await get("summary", universe, estimator);
    if (this.key !== `${universe}|${estimator}` || !past) return;
    const times = past.time_ns.map((text) => msOf(text) / 1000);
    this.lines.merge(times, [past.average_correlation, past.top_eigenvalue_share]);
    this.drift.merge(times, [past.drift_level]);
  }

  show(frame) {
    const { regime, drift_level: level } = frame.head;
    const time = frame.timeMs / 1000;
    this.lines.add(time, [regime.average_correlation, regime.top_eigenvalue_share]);
    this.drift.add(time, [level]);
    const share = frame.isDifference ? signed(regime.top_eigenvalue_share, 2) : `${Math.round(100 * regime.top_eigenvalue_share)} %`;
    const drift = level === null ? "" : `; drift level ${level.toFixed(2)} (alarm at 1)`;
    this.text.textContent = `Average correlation ${signed(regime.average_correlation, 2)} (blue), first eigenvalue's share ${share} (orange)${drift}`;
  }

  mark(events) {
    const marked = events.filter((event) => kindOf(event) !== "other").map((event) => ({ time: msOf(event.time_ns) / 1000, kind: kindOf(event) }));
    this.lines.mark(marked);
    this.drift.mark(marked);
  }

  recolour() {
    this.lines.recolour();
    this.drift.recolour();
  }
}
