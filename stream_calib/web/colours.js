// A diverging scale of blue, neutral and red that people who see no red or green can read too
// (the ends differ in blue against yellow, and both in lightness from the middle).

const LIGHT = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];
const DARK = ["#b3dcff", "#7fbaf2", "#4e93d6", "#33679f", "#27425f", "#26282c", "#5f3a2c", "#a3532f", "#dc7838", "#f9a65a", "#ffd9a0"];
export const STEPS = 512;

export function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

// STEPS + 1 colours from -1 to 1, as bytes r, g, b, a in the order of the machine.
export function scale(dark) {
  const stops = (dark ? DARK : LIGHT).map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const bytes = new Uint8ClampedArray(4 * (STEPS + 1));
  for (let k = 0; k <= STEPS; k++) {
    const x = (k / STEPS) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(x));
    for (let c = 0; c < 3; c++) {
      bytes[4 * k + c] = stops[low][c] + (x - low) * (stops[low + 1][c] - stops[low][c]);
    }
    bytes[4 * k + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function drawLegend(canvas, dark) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, 1);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = scale(dark);
  for (let k = 0; k < pixels.length; k++) pixels[k] = colours[Math.round((k / (pixels.length - 1)) * STEPS)];
  context.putImageData(image, 0, 0);
}
