// What the page does beyond its links: dark or light, the contents on a small screen, copying code.
// Nothing here is needed to read. Folding (quizzes, provenance) is HTML's own `details`.
"use strict";

const root = document.documentElement;

function isDark() {
  return (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function setUpTheme(button) {
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("shopfloor-theme", root.dataset.theme); } catch { /* forbidden: it lasts for this page */ }
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

function setUpMenu(button, contents) {
  const open = (yes) => {
    contents.classList.toggle("sf-open", yes);
    button.setAttribute("aria-expanded", String(yes));
  };
  button.addEventListener("click", () => open(!contents.classList.contains("sf-open")));
  contents.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { open(false); button.focus(); }
  });
}

function addCopyButton(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sf-copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = block.querySelector("pre").cloneNode(true);
    code.querySelectorAll(".gp, .linenos").forEach((part) => part.remove());  // prompts and line numbers
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  block.append(button);
}

setUpTheme(document.querySelector(".sf-theme-button"));
setUpMenu(document.querySelector(".sf-menu-button"), document.getElementById("contents"));
if (navigator.clipboard) document.querySelectorAll("div.highlight").forEach(addCopyButton);
