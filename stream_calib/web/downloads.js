// What is shown, as a file.

import { css } from "./colours.js";
import { timeText } from "./events.js";

export function toCsv(frame, order) {
  const lines = [["symbol", ...order.map((i) => frame.symbols[i])].map(quoted).join(",")];
  for (const i of order) {
    const numbers = order.map((j) => String(Number(frame.at(i, j).toPrecision(7)))); // float32 has no more
    lines.push([quoted(frame.symbols[i]), ...numbers].join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

function quoted(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toPicture(frame, heat) {
  const { width } = heat;
  const line = Math.max(16, Math.round(width / 40));
  const canvas = document.createElement("canvas");
  canvas.width = width + 2 * line;
  canvas.height = width + 3.5 * line;
  const context = canvas.getContext("2d");
  context.fillStyle = css("--panel");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = css("--text");
  context.font = `${0.8 * line}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const title = `${frame.head.universe}, ${frame.head.estimator}, ${timeText(frame.timeMs, true)}`;
  context.fillText(title, line, 1.2 * line, width);
  context.drawImage(heat, line, 2.3 * line);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export function nameOf(frame, suffix) {
  return `${frame.head.universe}-${frame.head.estimator}-${frame.head.sequence}.${suffix}`;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
