// Light or dark: as the system has it until somebody says otherwise.

const KEY = "stream_calib.theme";

// A browser may forbid to keep anything.
function kept(act) {
  try {
    return act(localStorage);
  } catch {
    return null;
  }
}

export function startTheme(button, onChange) {
  let chosen = kept((storage) => storage.getItem(KEY));
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", theme === "dark" ? "Change to light colours" : "Change to dark colours");
    onChange();
  };
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    kept((storage) => storage.setItem(KEY, chosen));
    apply();
  });
  apply();
}
