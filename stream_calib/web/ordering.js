// The order of rows in which clusters stand together, and stay where they are.
//
// Average linkage over 1 - r by chains of nearest neighbours (Murtagh 1983), O(n^2); the two
// halves of each merge are turned so that the most similar ends meet (Gruvaeus and Wainer 1972).

const BETTER = 0.05; // of similarity per row: below it the order stays as it is

export class Ordering {
  constructor() {
    this.symbols = [];
    this.order = [];
  }

  // Return the rows of `frame` in the order to show, and whether it is another one than before.
  of(frame, { anew = false, byName = false } = {}) {
    const names = frame.symbols;
    const known = new Map(names.map((name, i) => [name, i]));
    const kept = this.symbols.filter((name) => known.has(name)).map((name) => known.get(name));
    const complete = kept.length === names.length && kept.length === this.symbols.length;
    if (byName) {
      const sorted = names.map((_, i) => i).sort((a, b) => (names[a] < names[b] ? -1 : 1));
      return { order: sorted, changed: this.keep(frame, sorted) };
    }
    if (complete && !anew) return { order: kept, changed: this.keep(frame, kept) };
    const found = towards(kept, cluster(frame));
    if (complete && similarity(frame, found) - similarity(frame, kept) < BETTER * names.length) {
      return { order: kept, changed: this.keep(frame, kept) };
    }
    return { order: found, changed: this.keep(frame, found) };
  }

  keep(frame, order) {
    const changed = !sameOrder(order, this.order);
    this.symbols = order.map((i) => frame.symbols[i]);
    this.order = order;
    return changed;
  }
}

function sameOrder(a, b) {
  return a.length === b.length && a.every((x, k) => x === b[k]);
}

// How alike neighbours are, over a few rows.
export function similarity(frame, order) {
  const reach = Math.min(4, order.length - 1);
  let sum = 0;
  for (let k = 0; k < order.length; k++) {
    for (let step = 1; step <= reach && k + step < order.length; step++) {
      sum += frame.at(order[k], order[k + step]) / reach;
    }
  }
  return sum;
}

// Of an order and the same backwards, the one that moves rows less.
function towards(before, order) {
  const rank = new Map(before.map((i, k) => [i, k]));
  let ahead = 0;
  let back = 0;
  order.forEach((i, k) => {
    if (!rank.has(i)) return;
    ahead += Math.abs(rank.get(i) - k);
    back += Math.abs(rank.get(i) - (order.length - 1 - k));
  });
  return back < ahead ? order.slice().reverse() : order;
}

export function cluster(frame) {
  const n = frame.n;
  if (n < 3) return Array.from({ length: n }, (_, i) => i);
  const distance = new Float32Array(n * n);
  for (let i = 0, k = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++, k++) {
      distance[i * n + j] = distance[j * n + i] = 1 - frame.corr[k];
    }
  }
  const between = distance.slice(); // of clusters, by the row that stands for each
  const rows = Array.from({ length: n }, (_, i) => [i]);
  const size = new Float64Array(n).fill(1);
  const alive = Array.from({ length: n }, (_, i) => i);
  const chain = [];
  while (alive.length > 1) {
    if (chain.length === 0) chain.push(alive[0]);
    const top = chain[chain.length - 1];
    const last = chain.length > 1 ? chain[chain.length - 2] : -1;
    let nearest = last;
    let least = last < 0 ? Infinity : between[top * n + last];
    for (const other of alive) {
      if (other !== top && between[top * n + other] < least) {
        least = between[top * n + other];
        nearest = other;
      }
    }
    if (nearest !== last) {
      chain.push(nearest);
      continue;
    }
    chain.length -= 2;
    const [a, b] = top < nearest ? [top, nearest] : [nearest, top];
    for (const other of alive) {
      if (other === a || other === b) continue;
      const mean = (size[a] * between[a * n + other] + size[b] * between[b * n + other]) / (size[a] + size[b]);
      between[a * n + other] = between[other * n + a] = mean;
    }
    size[a] += size[b];
    rows[a] = joined(rows[a], rows[b], distance, n);
    rows[b] = null;
    alive.splice(alive.indexOf(b), 1);
  }
  return rows[alive[0]];
}

function joined(a, b, distance, n) {
  const apart = (x, y) => distance[x * n + y];
  const [a0, a1, b0, b1] = [a[0], a[a.length - 1], b[0], b[b.length - 1]];
  const ways = [apart(a1, b0), apart(a1, b1), apart(a0, b0), apart(a0, b1)];
  switch (ways.indexOf(Math.min(...ways))) {
    case 1: return a.concat(b.reverse());
    case 2: return a.reverse().concat(b);
    case 3: return b.concat(a);
    default: return a.concat(b);
  }
}
