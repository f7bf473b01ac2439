// Frames of /ws: the layout is in stream_calib/wire/live.py.

const MAGIC = 0x31564353; // "SCV1" as a little-endian number
const NO_BAND = 65535;
const BAND_UNITS = 65534;
export const NORMAL_95 = 1.959963984540054;

export class Frame {
  constructor(buffer) {
    const view = new DataView(buffer);
    if (view.getUint32(0, true) !== MAGIC) throw new Error("not a frame");
    const size = view.getUint32(4, true);
    this.head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    this.symbols = this.head.symbols;
    this.n = this.symbols.length;
    const m = (this.n * (this.n - 1)) / 2;
    this.corr = new Float32Array(buffer, 8 + size, m);
    this.units = new Uint16Array(buffer, 8 + size + 4 * m, m);
    this.key = `${this.head.universe}|${this.head.estimator}`;
    this.timeMs = msOf(this.head.as_of_ns);
    this.isDifference = this.head.estimator === "difference";
    this.places = null;
  }

  place(i, j) {
    return i < j ? i * this.n - (i * (i + 1)) / 2 + j - i - 1 : this.place(j, i);
  }

  at(i, j) {
    if (i === j) return this.isDifference ? 0 : 1;
    return this.corr[this.place(i, j)];
  }

  bandAt(i, j) {
    if (i === j) return null;
    const units = this.units[this.place(i, j)];
    return units === NO_BAND ? null : units / BAND_UNITS;
  }

  indexOf(symbol) {
    this.places ??= new Map(this.symbols.map((name, i) => [name, i]));
    return this.places.get(symbol) ?? -1;
  }

  // The symbol of this name in small letters, or that ends, begins, or goes on like it.
  like(wanted) {
    const names = this.symbols.slice().sort();
    const tests = [(name) => name === wanted, (name) => name.slice(name.indexOf(":") + 1) === wanted, (name) => name.startsWith(wanted), (name) => name.includes(wanted)];
    return tests.map((test) => names.find((name) => test(name.toLowerCase()))).find((name) => name !== undefined);
  }

  // The one that moves most with it, or against it.
  closestTo(symbol) {
    const i = this.indexOf(symbol);
    let best = i === 0 ? 1 : 0;
    for (let j = 0; j < this.n; j++) if (j !== i && Math.abs(this.at(i, j)) > Math.abs(this.at(i, best))) best = j;
    return this.symbols[best];
  }
}

export function sameSymbols(a, b) {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}

// Times are nanoseconds as text, beyond what a number holds.
export function msOf(text) {
  return Number(BigInt(text) / 1000000n);
}

// Bounds of 95 % by Fisher's z, as Matrix.pair has them.
export function bounds(corr, band, isDifference = false) {
  if (band === null) return [null, null];
  if (isDifference) return [Math.max(-2, corr - NORMAL_95 * band), Math.min(2, corr + NORMAL_95 * band)];
  if (Math.abs(corr) >= 1) return [null, null];
  const z = Math.atanh(corr);
  const width = (NORMAL_95 * band) / (1 - corr * corr);
  return [Math.tanh(z - width), Math.tanh(z + width)];
}

export function signed(x, digits = 3) {
  const text = Math.abs(x).toFixed(digits);
  return (x < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
}

export function plainName(symbols) {
  // the exchange before the colon is left out where nothing is confused by it
  const short = symbols.map((name) => name.slice(name.indexOf(":") + 1));
  return new Set(short).size === short.length ? (i) => short[i] : (i) => symbols[i];
}
