// The matrix as numbers, for who cannot see it or wants them. Names are set as text, never as HTML.

import { signed } from "./frames.js";

const PAIRS = 8;

export function strongestAndWeakest(frame) {
  // by size, not by sign: a pair of -0.9 is a strong one
  const strong = [];
  const weak = [];
  for (let i = 0, k = 0; i < frame.n; i++) {
    for (let j = i + 1; j < frame.n; j++, k++) {
      const size = Math.abs(frame.corr[k]);
      keep(strong, { i, j, size: -size });
      keep(weak, { i, j, size });
    }
  }
  return { strong, weak };
}

function keep(best, one) {
  if (best.length === PAIRS && one.size >= best[PAIRS - 1].size) return;
  let at = best.length;
  while (at > 0 && best[at - 1].size > one.size) at -= 1;
  best.splice(at, 0, one);
  if (best.length > PAIRS) best.pop();
}

export function fillPairs(table, frame, pairs) {
  fill(table, pairs.map(({ i, j }) => [
    `${frame.symbols[i]} ~ ${frame.symbols[j]}`, signed(frame.at(i, j)), error(frame.bandAt(i, j)),
  ]));
}

export function fillMoved(table, moved, since) {
  table.caption.textContent = `Moved most since ${since}`;
  fill(table, moved.map(({ pair, then, now }) => [pair.join(" ~ "), signed(then), signed(now), signed(now - then)]));
}

export function fillRow(table, frame, symbol) {
  const i = frame.indexOf(symbol);
  table.caption.textContent = i < 0 ? "All pairs" : `All pairs of ${symbol}`;
  if (i < 0) return fill(table, []);
  const others = frame.symbols.map((_, j) => j).filter((j) => j !== i);
  others.sort((a, b) => frame.at(i, b) - frame.at(i, a));
  return fill(table, others.map((j) => [
    frame.symbols[j], signed(frame.at(i, j)), error(frame.bandAt(i, j)), seconds(Number(frame.head.staleness_ns[j]) / 1e9),
  ]));
}

function error(band) {
  return band === null ? "\u2013" : band.toFixed(3);
}

export function seconds(s) {
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

// Rows that are there are written over: a table that is rebuilt loses the reader's place.
function fill(table, rows) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((texts, k) => {
    const row = body.rows[k] ?? newRow(body, texts.length);
    texts.forEach((text, c) => {
      if (row.cells[c].textContent !== text) row.cells[c].textContent = text;
    });
  });
}

function newRow(body, width) {
  const row = body.insertRow();
  const head = document.createElement("th");
  head.scope = "row";
  row.append(head);
  for (let c = 1; c < width; c++) row.insertCell();
  return row;
}
