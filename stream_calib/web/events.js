// What happened, in words.

import { msOf } from "./frames.js";

const SAID = {
  drift_blind: "The watch for drift begins anew",
  drift_watched: "The watch for drift sees again",
  drift_refuted: "Nothing has confirmed the alarm",
  drift_dropped: "The alarm was dropped",
  refit_requested: "A fit is asked for",
  refit_installed: "A model is installed",
  refit_shadowed: "A model runs in shadow",
  refit_rejected: "A model was rejected",
  refit_rolled_back: "The model before is back",
  refit_failed: "A fit failed",
  gap: "A gap in the market's time",
  price_jump: "A price jumped",
  adjusted: "Prices were adjusted",
  sources_retired: "Partitions are read no more",
  gap_accepted: "Input that is gone was passed over",
};

export function kindOf(event) {
  if (event.type === "drift_alarm") return "alarm";
  return ["refit_installed", "refit_rolled_back"].includes(event.type) ? "refit" : "other";
}

export function textOf(event) {
  const details = event.details;
  if (event.type === "drift_alarm") {
    const { average_before: before, average_after: after } = details;
    const moved = typeof before === "number" && typeof after === "number" ? `: average ${before.toFixed(2)} to ${after.toFixed(2)}` : "";
    return `Drift alarm, ${details.alternative}${moved}`;
  }
  const why = details.reason ?? details.cause ?? details.symbol;
  const text = SAID[event.type] ?? event.type.replaceAll("_", " ");
  return typeof why === "string" ? `${text} (${why})` : text;
}

export function timeText(ms, withDate = false) {
  const iso = new Date(ms).toISOString();
  return withDate ? `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC` : iso.slice(11, 19);
}

export function fillEvents(list, events) {
  list.replaceChildren(...events.map((event) => {
    const item = document.createElement("li");
    const time = document.createElement("time");
    const ms = msOf(event.time_ns);
    time.dateTime = new Date(ms).toISOString();
    time.textContent = timeText(ms);
    time.title = timeText(ms, true);
    const text = document.createElement("span");
    text.textContent = textOf(event);
    text.className = kindOf(event);
    item.append(time, text);
    return item;
  }));
}
