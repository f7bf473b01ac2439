// Lines over time, by uPlot (uplot/LICENSE).

import { css } from "./colours.js";
import { timeText } from "./events.js";
import { signed } from "./frames.js";

const POINTS_MAX = 2000;
const HEAVY = { alarm: "--mark", refit: "--second" };

export class Lines {
  // `series`: [{ label, colour, hidden, step }], `band`: [upper, lower] among them
  constructor(box, { series, band = null, range = null, level = null, marks = false, height = 220 }) {
    Object.assign(this, { box, series, band, range, level, marks, height });
    this.data = [[], ...series.map(() => [])];
    this.marked = [];
    this.plot = null;
    this.due = false;
    this.readout = document.createElement("div");
    this.readout.className = "readout";
    this.readout.hidden = true;
    box.append(this.readout);
    new ResizeObserver(() => this.resize()).observe(box);
  }

  set(times, columns) {
    this.data = [times, ...columns];
    this.later();
  }

  add(time, values) {
    const times = this.data[0];
    const last = times[times.length - 1];
    if (time === last) return;
    if (time < last) this.data = [[], ...this.series.map(() => [])]; // the input was begun anew
    if (time < last) return this.add(time, values);
    times.push(time);
    values.forEach((value, k) => this.data[k + 1].push(value));
    if (times.length > POINTS_MAX) this.data.forEach((column) => column.splice(0, column.length - POINTS_MAX));
    this.later();
  }

  // Put the past under what has been drawn since: both may lack points that the other has.
  merge(times, columns) {
    const [own, ...values] = this.data;
    const rows = new Map();
    times.forEach((time, k) => rows.set(time, columns.map((column) => column[k])));
    own.forEach((time, k) => rows.set(time, values.map((column) => column[k])));
    const all = [...rows.keys()].sort((a, b) => a - b).slice(-POINTS_MAX);
    this.set(all, columns.map((_, c) => all.map((time) => rows.get(time)[c])));
  }

  mark(marked) {
    this.marked = marked;
    this.later();
  }

  // Drawn once for all that comes before the next picture of the page.
  later() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      if (this.plot) this.plot.setData(this.data);
      else this.build();
    });
  }

  recolour() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.later();
  }

  resize() {
    if (!this.box.clientWidth) return;
    if (this.plot) this.plot.setSize({ width: this.box.clientWidth, height: this.height });
    else this.later(); // there was no room before
  }

  build() {
    if (!this.box.clientWidth || !window.uPlot) return;
    const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      width: this.box.clientWidth,
      height: this.height,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { time: true, range: wide }, y: this.range ? { range: this.range } : {} },
      tzDate: (s) => window.uPlot.tzDate(new Date(1000 * s), "Etc/UTC"),
      axes: [{ ...axis, space: 70, size: 26, values: clock }, { ...axis, size: 42, values: (_, ticks) => ticks.map((x) => String(x).replace("-", "\u2212")) }],
      series: [{}, ...this.series.map((one) => ({
        label: one.label,
        stroke: one.colour ? css(one.colour) : "transparent",
        width: one.colour ? 1.6 : 0,
        points: { show: (plot) => plot.data[0].length < 2 && one.colour !== undefined, size: 6 }, // a line needs two
        spanGaps: false,
      }))],
      hooks: { draw: [(plot) => this.over(plot)], setCursor: [(plot) => this.read(plot)] },
    };
    if (this.band) options.bands = [{ series: this.band, fill: css("--band") }];
    this.plot = new window.uPlot(options, this.data, this.box);
  }

  // What there is under the pointer, in words.
  read(plot) {
    const at = plot.cursor.idx;
    const known = at !== null && at !== undefined && plot.cursor.left >= 0 && this.data[0].length > 0;
    this.readout.hidden = !known;
    if (!known) return;
    const values = this.series.map((one, k) => [one.label, this.data[k + 1][at]]).filter(([, value]) => typeof value === "number");
    this.readout.textContent = [timeText(1000 * this.data[0][at]), ...values.map(([label, value]) => `${label} ${signed(value)}`)].join(" \u00b7 ");
  }

  over(plot) {
    const { ctx: context, bbox: box } = plot;
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.width, box.height);
    context.clip();
    if (this.level !== null) {
      const y = plot.valToPos(this.level, "y", true);
      stroke(context, css("--mark"), [4, 4], box.left, y, box.left + box.width, y);
    }
    if (this.marks) {
      for (const { time, kind } of this.marked) {
        const x = plot.valToPos(time, "x", true);
        stroke(context, css(HEAVY[kind] ?? "--quiet"), kind === "alarm" ? [] : [2, 3], x, box.top, x, box.top + box.height);
      }
    }
    context.restore();
  }
}

// UTC, as all times of the service: days, minutes or seconds by how far apart they are.
function clock(_, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  return ticks.map((s) => {
    const iso = new Date(1000 * s).toISOString();
    if (step >= 86400) return iso.slice(5, 10);
    return step >= 60 ? iso.slice(11, 16) : iso.slice(11, 19);
  });
}

function wide(plot, low, high) {
  // the first point has no width of time yet, and uPlot would make it years
  const times = plot.data[0];
  if (times.length > 1) return [low, high];
  const middle = times[0] ?? Date.now() / 1000;
  return [middle - 30, middle + 30];
}

function stroke(context, colour, dash, x0, y0, x1, y1) {
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
