"use strict";
// Before the first paint, so that a page chosen dark never flashes white.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("lsgm-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch { /* no storage: the system's theme */ }
