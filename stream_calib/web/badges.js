// Whether what is shown can be trusted, in a line of badges.

import { msOf } from "./frames.js";
import { timeText } from "./events.js";
import { seconds } from "./tables.js";

const SILENT_S = 10; // without a frame
const LATE_STEPS = 4; // publishing periods between the newest tick and the matrix, or its horizons

export function badges({ frame, connected, paused, progress, reasons, standsBy, stepMs, periodS, silentS }) {
  const found = [];
  const add = (text, kind = "", title = "") => found.push({ text, kind, title });
  if (!connected) add("no connection, trying again", "warn");
  else if (standsBy) add("stands by", "warn", "Another worker is the owner: see its page for what is new");
  else if (!frame) add("waiting", "warn");
  else if (paused) add("paused", "warn", "What came since is not shown");
  else if (silentS > SILENT_S && silentS > 5 * Math.max(stepMs / 1000, periodS)) add(`nothing new for ${seconds(silentS)}`, "warn");
  else add("live", "good");
  for (const reason of frame ? reasons : []) add(reason, "warn", "Why the service is not ready");
  if (!frame) return found;
  const { head } = frame;
  add(`as of ${timeText(frame.timeMs, true)}`, "", `number ${head.sequence}`);
  if (progress?.newest_ns) {
    const age = Math.max(0, (msOf(progress.newest_ns) - frame.timeMs) / 1000);
    const late = age > 5 && age > LATE_STEPS * Math.max(stepMs / 1000, periodS, Number(head.horizon_ns) / 1e9);
    add(`${seconds(age)} behind the newest tick`, late ? "warn" : "", "In event time");
    if (progress.lag_records > 0) add(`${progress.lag_records.toLocaleString("en")} records unread`);
  }
  add(`${frame.n} symbols`);
  if (head.pending.length) add(`${head.pending.length} pending`, "warn", head.pending.join(", "));
  const oldest = Math.max(...head.staleness_ns.map(Number)) / 1e9;
  if (oldest >= 60) add(`oldest price ${seconds(oldest)}`, "warn", frame.symbols[head.staleness_ns.findIndex((age) => Number(age) / 1e9 === oldest)]);
  const { quality } = head;
  if (quality.repair > 0) add(`repaired: shrunk by ${(100 * quality.repair).toFixed(1)} %`, "warn", "Towards the identity, to be positive definite");
  if (quality.capped_pairs > 0) add(`${quality.capped_pairs} pairs capped`, "warn");
  for (const reason of quality.degraded) add(`degraded: ${reason}`, "warn");
  if (head.estimator !== "ewma") add(`model ${head.model_version}`);
  return found;
}

export function fillBadges(list, found) {
  const now = JSON.stringify(found);
  if (list.dataset.now === now) return; // nothing to read out again
  list.dataset.now = now;
  list.replaceChildren(...found.map(({ text, kind, title }) => {
    const item = document.createElement("li");
    item.textContent = text;
    item.className = kind;
    if (title) item.title = title;
    return item;
  }));
}
