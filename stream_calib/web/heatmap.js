// The matrix as an image: one pixel per pair, made large.

import { STEPS, css, isDark, scale } from "./colours.js";
import { plainName } from "./frames.js";

const NAMES_MAX = 40; // symbols that are written beside their rows
const CROSS_MAX = 3; // width of the lines around the chosen pair, in pixels of the page

export class HeatMap {
  constructor(canvas, { onChoose, onHover }) {
    this.canvas = canvas;
    this.image = document.createElement("canvas");
    this.order = [];
    this.frame = null;
    this.map = new Int32Array(0);
    this.chosen = [0, 1]; // places in the order
    this.limit = 1;
    this.onChoose = onChoose;
    this.onHover = onHover;
    this.pointer = null; // the last event of it
    this.recolour();
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.onHover(null);
    });
    canvas.addEventListener("pointerdown", (event) => {
      const cell = this.cellAt(event);
      if (cell && cell[0] !== cell[1]) this.onChoose(...this.symbolsAt(cell));
    });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  recolour() {
    this.colours = scale(isDark());
    if (this.frame) this.fill();
  }

  show(frame, order, changed, limit) {
    this.frame = frame;
    this.limit = limit;
    if (changed || order.length !== this.order.length) {
      this.order = order;
      this.lay();
    }
    this.fill();
    if (this.pointer) this.hover(this.pointer); // the number under it is another one now
  }

  // Which entry of the triangle each pixel shows, found once for an order.
  lay() {
    const n = this.order.length;
    this.map = new Int32Array(n * n).fill(-1);
    this.image.width = this.image.height = n;
    this.data = this.image.getContext("2d").createImageData(n, n);
    this.pixels = new Uint32Array(this.data.data.buffer);
    this.order.forEach((i, a) => {
      this.order.forEach((j, b) => {
        if (i !== j) this.map[a * n + b] = this.frame.place(i, j);
      });
    });
  }

  fill() {
    const { map, pixels, colours } = this;
    const corr = this.frame.corr;
    const half = STEPS / 2;
    const stretch = half / this.limit;
    const diagonal = this.frame.isDifference ? half : STEPS;
    for (let k = 0; k < map.length; k++) {
      const place = map[k];
      const step = place < 0 ? diagonal : half + Math.round(corr[place] * stretch);
      pixels[k] = colours[step < 0 ? 0 : step > STEPS ? STEPS : step];
    }
    this.image.getContext("2d").putImageData(this.data, 0, 0);
    this.paint();
  }

  paint() {
    if (!this.frame || !this.canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    if (this.canvas.width !== width || this.canvas.height !== width) this.canvas.width = this.canvas.height = width;
    const context = this.canvas.getContext("2d");
    const n = this.order.length;
    this.edge = n <= NAMES_MAX ? this.margin(context, ratio) : 0;
    this.side = width - this.edge;
    context.clearRect(0, 0, width, width);
    context.imageSmoothingEnabled = this.side < n;
    context.drawImage(this.image, this.edge, this.edge, this.side, this.side);
    if (this.edge) this.names(context, ratio);
    this.cross(context, ratio);
  }

  font(ratio) {
    const cell = (this.canvas.width / ratio) * 0.85 / this.order.length;
    return Math.max(8, Math.min(13, cell * 0.75)) * ratio;
  }

  margin(context, ratio) {
    context.font = `${this.font(ratio)}px system-ui, sans-serif`;
    const name = plainName(this.frame.symbols);
    const widest = Math.max(...this.order.map((i) => context.measureText(name(i)).width));
    return Math.round(Math.min(widest + 8 * ratio, 0.22 * this.canvas.width));
  }

  names(context, ratio) {
    const name = plainName(this.frame.symbols);
    const cell = this.side / this.order.length;
    context.font = `${this.font(ratio)}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    this.order.forEach((i, k) => {
      const middle = this.edge + (k + 0.5) * cell;
      const room = this.edge - 6 * ratio;
      context.fillStyle = css(this.chosen.includes(k) ? "--text" : "--quiet");
      context.textAlign = "right";
      const text = fitted(context, name(i), room);
      context.fillText(text, this.edge - 5 * ratio, middle);
      context.save();
      context.translate(middle, this.edge - 5 * ratio);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(text, 0, 0);
      context.restore();
    });
  }

  cross(context, ratio) {
    const cell = this.side / this.order.length;
    const [a, b] = this.chosen;
    if (a >= this.order.length || b >= this.order.length) return;
    const thick = Math.max(1, Math.min(CROSS_MAX, cell / 10)) * ratio;
    const size = Math.max(cell, 10 * ratio);
    context.lineWidth = thick;
    for (const [row, column, colour] of [[b, a, "--quiet"], [a, b, "--text"]]) {
      const x = this.edge + (column + 0.5) * cell - size / 2;
      const y = this.edge + (row + 0.5) * cell - size / 2;
      // within the cell: one line seen on light colours, and one seen on dark ones
      [colour, "--panel"].forEach((name, k) => {
        const inset = thick * (k + 0.5);
        context.strokeStyle = css(name);
        context.strokeRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset);
      });
    }
  }

  choose(a, b) {
    this.chosen = [a, b];
    this.paint();
  }

  symbolsAt([a, b]) {
    return [this.frame.symbols[this.order[a]], this.frame.symbols[this.order[b]]];
  }

  cellAt(event) {
    if (!this.frame) return null;
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const cell = this.side / this.order.length;
    const [b, a] = [event.clientX - box.left, event.clientY - box.top].map((x) => Math.floor((x * ratio - this.edge) / cell));
    const inside = (k) => k >= 0 && k < this.order.length;
    return inside(a) && inside(b) ? [a, b] : null;
  }

  hover(event) {
    this.pointer = event;
    const cell = this.cellAt(event);
    const box = this.canvas.getBoundingClientRect();
    this.onHover(cell && cell.map((k) => this.order[k]), event.clientX - box.left, event.clientY - box.top);
  }

  key(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const last = this.order.length - 1;
    let [a, b] = this.chosen;
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      a += down;
      b += right;
      if (a === b) { // over the diagonal
        a += down;
        b += right;
      }
    } else if (event.key === "Home") b = a === 0 ? 1 : 0;
    else if (event.key === "End") b = a === last ? last - 1 : last;
    else return;
    event.preventDefault();
    if (a < 0 || b < 0 || a > last || b > last || a === b) return;
    this.onChoose(...this.symbolsAt([a, b]));
  }
}

// A name in the room that there is: the middle is left out, for the ends tell names apart.
export function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  const marks = [...text];
  let [few, many] = [0, marks.length];
  const cut = (kept) => {
    const head = Math.ceil(kept / 2);
    return `${marks.slice(0, head).join("")}\u2026${kept > head ? marks.slice(head - kept).join("") : ""}`;
  };
  while (few + 1 < many) {
    const half = (few + many) >> 1;
    if (context.measureText(cut(half)).width <= room) few = half;
    else many = half;
  }
  return cut(few);
}
